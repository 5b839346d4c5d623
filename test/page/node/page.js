// Looks at the status page as people do: by day, by night, on a phone, and with the keyboard alone.
"use strict";
const assert = require("node:assert/strict");
const { chromium } = require("playwright-core");

const keyrow = process.env.KEYROW;
const looks = [
  { name: "light", colorScheme: "light", viewport: { width: 1100, height: 800 } },
  { name: "dark", colorScheme: "dark", viewport: { width: 1100, height: 800 } },
  { name: "phone", colorScheme: "light", viewport: { width: 360, height: 740 }, hasTouch: true },
];

// contrasts returns texts whose contrast with what is behind them is below what WCAG asks for (AA, 4.5).
function contrasts() {
  const rgb = text => text.match(/[\d.]+/g).map(Number);
  const light = c => {
    const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.checkVisibility() || e.closest("noscript, script, style")) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}

async function look(browser, { name, ...options }) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const wrong = [], asked = [];
  page.on("console", m => { if (m.type() === "error" || m.type() === "warning") wrong.push(m.text()); });
  page.on("pageerror", e => wrong.push(String(e)));
  page.on("request", r => asked.push(r.url()));
  await page.goto(keyrow + "/");
  await page.waitForFunction(() => document.getElementById("state").textContent === "ready");
  // Two looks make rates.
  for (const id of ["hits", "rate", "p50", "p99", "pending", "oldest", "flush", "clients"]) {
    await page.waitForFunction(id => /\d/.test(document.getElementById(id).textContent), id);
  }
  assert.deepEqual(await page.locator("#rows th").allTextContents(), ["user", "order", "ranking"]);
  await page.locator("#parked li").nth(1).waitFor();
  const servers = await page.locator("#servers li").allTextContents();
  assert.ok(servers.some(s => s.startsWith("Redisup")) && servers.some(s => s.startsWith("MySQLup")), servers.join("\n"));

  const wide = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(wide[0] <= wide[1], `${name}: the page is ${wide[0]} wide, the window ${wide[1]}`);
  assert.deepEqual(await page.evaluate(contrasts), [], name + ": contrast");
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(dark === "rgb(15, 19, 24)", options.colorScheme === "dark", name + ": " + dark);
  // What assistive technology is told: headings in order, everything that can be used has a name.
  assert.deepEqual(await page.evaluate(() => [...document.querySelectorAll("h1, h2")].filter(h => h.checkVisibility()).map(h => h.tagName)),
    ["H1", "H2", "H2", "H2", "H2"]);
  for (const button of await page.locator("button:visible").all()) {
    assert.ok(((await button.getAttribute("aria-label")) || (await button.textContent())).trim());
  }
  if (name === "phone") {
    for (const box of await Promise.all((await page.locator("button:visible").all()).map(b => b.boundingBox()))) {
      assert.ok(box.height >= 32, `a button is ${box.height} high`);
    }
  }

  assert.ok(asked.every(url => url.startsWith(keyrow + "/")), asked.join("\n"));
  assert.deepEqual(wrong, [], name);
  return { page, context };
}

// keyboard does without a mouse what there is to do.
async function keyboard(page) {
  const focus = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") || document.activeElement.textContent.trim());
  const tabTo = async want => {
    for (let n = 0; n < 40; n++) {
      await page.keyboard.press("Tab");
      const at = await focus();
      if (at === want) {
        assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", "the focus shows");
        return;
      }
    }
    assert.fail("the keyboard does not lead to " + want);
  };
  await tabTo("To the mappings");
  await page.keyboard.press("Enter");
  assert.equal(await focus(), "Mappings and queries");
  await page.evaluate(() => document.activeElement.blur());

  await tabTo("Retry user:901");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("done").textContent === "user:901 is tried again.");
  assert.equal(await focus(), "Retry user:901", "the focus stays");

  // To drop has to be said twice, and Escape is no.
  await tabTo("Drop user:902");
  await page.keyboard.press("Enter");
  assert.equal(await focus(), "Keep it");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.getElementById("sure").open);
  assert.equal(await focus(), "Drop user:902");
  assert.equal(await page.locator("#parked li").count(), 2);
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.equal(await focus(), "Drop it");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("done").textContent === "user:902 was dropped.");
  await page.waitForFunction(() => document.querySelectorAll("#parked li").length === 1);

  // What moves can be stopped.
  await page.locator("#pause").focus();
  await page.keyboard.press("Enter");
  assert.equal(await focus(), "Go on");
  assert.equal(await page.locator("#pause").getAttribute("aria-pressed"), "true");
  await page.keyboard.press("Enter");
  assert.equal(await focus(), "Pause");
}

(async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    for (const one of looks) {
      const { page, context } = await look(browser, one);
      if (one.name === "light" && process.env.SHOT) {
        await page.waitForFunction(() => document.querySelector("#rate-line polyline").getAttribute("points").split(" ").length > 12);
        await page.screenshot({ path: process.env.SHOT });
      }
      await context.close();
      console.log(one.name, "passed");
    }
    const { page, context } = await look(browser, looks[0]);
    await keyboard(page);
    console.log("keyboard passed");
    // A keyrow that is gone shows.
    await context.setOffline(true);
    await page.waitForFunction(() => document.getElementById("state").textContent === "no answer");
    assert.ok(await page.locator("#trouble").isVisible());
    await context.setOffline(false);
    await page.waitForFunction(() => document.getElementById("state").textContent === "ready");
    assert.ok(!(await page.locator("#trouble").isVisible()));
    console.log("outage passed");
  } finally {
    await browser.close();
  }
})().catch(error => {
  console.error(error);
  process.exit(1);
});
