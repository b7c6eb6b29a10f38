"""Names that would do harm where a page took them for markup, templates, formats or directions."""

MARKUP = r"""
<img src=//evil.test/x onerror=alert(1)>
<script>alert(1)</script>
</canvas><script>alert(1)</script>
"><svg/onload=alert(1)>
' onclick=alert(1) '
<iframe srcdoc='<script>alert(1)</script>'>
<a href=javascript:alert(1)>Ada</a>
<style>*{display:none}</style>
<link rel=stylesheet href=//evil.test>
<base href=//evil.test>
<meta http-equiv=refresh content=0>
<!--
]]>
&lt;script&gt;alert(1)
&#60;script&#62;
\u003cscript\u003e
%3Cscript%3E
javascript:alert(1)
{{7*7}}
${alert(1)}
<%= 7*7 %>
#{7*7}
{% debug %}
{0.__class__}
%s%n%x
$(id)
`id`
$&
__proto__
constructor
null
undefined
NaN
0
[object Object]
"}],"type":"bye"
'; DROP TABLE persons; --
=HYPERLINK("http://evil.test")
@SUM(1)
../../etc/passwd
C:\aux
a|b
"""
HOSTILE_NAMES = [
    *MARKUP.strip().split("\n"),
    *("محمد", "עדה", "Ada محمد <b>", "\u202emoc.live", "\u2066Ada\u2069", "\u200eAda", "Z" + "\u0301" * 150),
    *("W" * 200, "ﷺ" * 200, "💣" * 200, "👩\u200d👧" * 20, "🇩🇪" * 50, "\ufeffAda", "Ada\u200b", "\u00ad", "\ue000"),
    *("\x1b[31mAda", "\x07", "Ada\r\nX: y", "Ada\tBob", "Ada\u2028Bob", "\x7f", "\x85", "\uffff", "\ufffd", " Ada "),
]
