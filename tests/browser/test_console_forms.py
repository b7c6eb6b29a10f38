"""Forms that are half filled in: other texts, leaving them, and the sentence to which a person agrees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from playwright.async_api import Page, expect
from tests.browser.conftest import NO_CHROMIUM, Site, Visit
from tests.browser.test_console_people import as_file, consent
from tests.faces import portrait

from vultus.domain import Role

pytestmark = NO_CHROMIUM
VOICES = """
const voices = [
  { name: "elsewhere", lang: "de-DE", localService: false }, { name: "here", lang: "en-GB", localService: true },
];
window.said = [];
window.SpeechSynthesisUtterance = class { constructor(text) { this.text = text; } };
Object.defineProperty(window, "speechSynthesis", { value: Object.assign(new EventTarget(), {
  getVoices: () => voices, speaking: false,
  speak(spoken) { this.speaking = true; said.push([spoken.voice.name, spoken.text]); },
  cancel() { this.speaking = false; },
}) });
"""


async def begin(visit: Visit) -> Page:
    """Fill in a form, but send nothing."""
    gallery = await visit.site.make_gallery()
    page = await visit.open(await visit.site.make_key(Role.MANAGE, gallery), "#/people/new")
    await consent(page, "Ada")
    await page.locator(".dropzone input").set_input_files(as_file(portrait()))
    await expect(page.locator(".photos > li.usable")).to_be_visible()
    return page


async def test_another_language_or_theme_changes_nothing_but_texts(visit: Visit) -> None:
    page = await begin(visit)
    english = await page.locator("body").inner_text()
    await page.get_by_role("button", name="Settings and sign out").click()
    menu = page.locator("#menu")
    language = menu.get_by_label("Language")
    await language.select_option("de")

    await expect(page.get_by_role("heading", level=1)).to_have_text("Person hinzufügen")
    assert await page.title() == "Personen · Vultus"
    assert await page.get_by_label("Wofür").input_value() == "Entry to building A"
    await expect(page.get_by_label("Name", exact=True)).to_have_value("Ada")
    await expect(page.get_by_label("Die Person hat das gehört")).to_be_checked()
    await expect(page.locator(".photos > li.usable")).to_contain_text("Schärfe")
    await expect(page.locator("blockquote")).to_contain_text("I agree that my face")
    await menu.get_by_label("Darstellung").select_option("dark")
    await menu.get_by_label("Sprache").select_option("en")
    await expect(language).to_have_value("en")
    await page.keyboard.press("Escape")

    assert await page.locator("body").inner_text() == english
    await page.get_by_role("button", name="Register", exact=True).click()
    await expect(page.get_by_text("1 face is enrolled")).to_be_visible()


async def test_leaving_what_is_filled_in_asks_first(visit: Visit, site: Site) -> None:
    page = await begin(visit)
    question = page.get_by_role("dialog", name="Leave what is filled in?")
    sign_out = page.get_by_role("button", name="Sign out", exact=True)
    closing = "(() => { const end = new Event('beforeunload', { cancelable: true }); return !dispatchEvent(end); })()"
    assert await page.evaluate(closing)
    for leave in (page.get_by_role("link", name="Recognise"), sign_out):
        if leave is sign_out:
            await page.get_by_role("button", name="Settings and sign out").click()
        await leave.click()
        await expect(question).to_be_visible()
        await visit.show("leave")
        await page.keyboard.press("Escape")
        await expect(question).to_have_count(0)
        await expect(page.get_by_label("Name", exact=True)).to_have_value("Ada")
        assert page.url.endswith("#/people/new")
    await page.evaluate("history.back()")
    await page.get_by_role("link", name="Recognise").click()
    await question.get_by_role("button", name="Leave").click()

    await expect(page.get_by_role("heading", name="Recognise")).to_be_focused()
    assert page.url.endswith("#/recognise")
    assert not await page.evaluate(closing)


async def test_what_is_said_to_a_person_is_recorded(visit: Visit, site: Site) -> None:
    gallery = await site.make_gallery()
    await site.api.client.patch(f"/v1/collections/{gallery}", json={"retention_days": 400})
    await site.api.client.patch(f"/v1/collections/{gallery}", json={"policy": {"keep_crops": True}})
    await visit.page.add_init_script(VOICES)
    page = await visit.open(await site.make_key(Role.MANAGE, gallery), "#/people/new")
    await consent(page, "Ada")
    await page.get_by_label("The person has heard or read this").uncheck()
    sentence, read = page.locator("blockquote"), page.get_by_role("button", name="Read aloud")
    end = datetime.now(UTC) + timedelta(days=400)
    await expect(sentence).to_contain_text(f"{end:%B} {end.day}, {end.year}")
    await expect(sentence).to_contain_text("A picture of my face is kept as well")

    await read.click()
    assert await page.evaluate("said") == [["here", await sentence.inner_text()]]
    await page.get_by_role("button", name="Stop reading").click()
    await expect(read).to_be_visible()
    await page.get_by_role("button", name="Show large").click()
    await expect(page.get_by_role("dialog").locator("blockquote")).to_contain_text("Entry to building A")
    await visit.show("sentence")
    await page.keyboard.press("Escape")
    await page.get_by_label("Language of the sentence").select_option("de")
    await expect(sentence).to_contain_text("Ich bin einverstanden, dass mein Gesicht")
    await expect(sentence).to_have_attribute("lang", "de")
    await expect(read).to_be_hidden()  # a voice of another machine would send the sentence there
    await expect(page.get_by_label("The person has heard or read this")).not_to_be_checked()

    await page.get_by_label("The person has heard or read this").check()
    await page.locator(".dropzone input").set_input_files(as_file(portrait()))
    await page.get_by_role("button", name="Register", exact=True).click()
    await expect(page.get_by_text("proof: Sentence 1 of the console, Deutsch")).to_be_visible()
