"use strict";

// What all pages share: their data, tables of figures, the items to choose from, keys, themes.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector) => document.querySelector(selector);

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const step = (value, by, count) => (value + by + count) % count;
const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
const seconds = (value) => value.toFixed(value < 10 ? 3 : 1);
const grouped = (value) => value.toLocaleString("en-US");

function element(tag, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

// ---- tables. A column is [head, key of a result, text of a result, which values are marked as
// best: 1 the largest, -1 the smallest, 0 none].

function cells(columns, result, among) {
  return columns.map(([, key, text, sign]) => {
    if (result[key] === undefined) return element("td");
    const values = among.map((r) => r[key]).filter((value) => value !== null);
    const best = sign && among.length > 1 && result[key] !== null
      && result[key] * sign === Math.max(...values.map((value) => value * sign));
    return element("td", { className: best ? "best" : "" }, text(result));
  });
}

const heads = (columns, ...first) => element("thead", {}, element("tr", {},
  ...first, ...columns.map(([head]) => element("th", { textContent: head }))));

const nameHead = () => element("th", { className: "name", textContent: "codec" });

/** The cell that names a result; `index` is the digit that shows it. */
function nameCell({ codec, ours }, index = null) {
  const key = index === null ? [] : [element("kbd", {}, index < 10 ? `${index}` : " ")];
  return element("td", { className: ours ? "name ours" : "name" }, ...key, codec);
}

/** Means over the items, of the codecs that did all of them. */
function fillMeans(columns, items, what) {
  const count = items.length;
  const all = items.flatMap((one) => one.results);
  const means = [...new Set(all.map((result) => result.codec))].map((codec) => {
    const own = all.filter((result) => result.codec === codec);
    const mean = (key) => (own.some((result) => result[key] === null) ? null
      : own.reduce((sum, result) => sum + result[key], 0) / count);
    const values = Object.fromEntries(columns.map(([, key]) => [key, mean(key)]));
    return { ...values, bytes: Math.round(values.bytes), codec, ours: own[0].ours, own };
  }).filter((mean) => mean.own.length === count);
  const rows = means.map((mean) =>
    element("tr", {}, nameCell(mean), ...cells(columns, mean, means)));
  $("#means").replaceChildren(element("caption", {}, `mean of the ${count} ${what}`),
    heads(columns, nameHead()), element("tbody", {}, ...rows));
  $("#means").hidden = count < 2;
}

// ---- items, views, themes, keys

/** A button for each item, with what `face` gives to show on it. */
function fillItems(items, face, choose) {
  if (items.length < 2) return;
  $("#items").append(...items.map((one, index) => element("button",
    { type: "button", title: one.name, onclick: () => choose(index) }, face(one))));
}

function press(selector, pressed) {
  document.querySelectorAll(selector).forEach((button, index) =>
    button.setAttribute("aria-pressed", pressed(button, index)));
}

function changeTheme() {
  const themes = ["", "light", "dark"], style = document.documentElement.style;
  style.colorScheme = themes[step(themes.indexOf(style.colorScheme), 1, 3)];
}

/** Call what stands in `keys()` under the key; `choose(digit, shift)` says whether it took a digit. */
function listen(keys, choose) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("button, select") && [" ", "Enter"].includes(event.key)) return;
    if (event.key === "Escape" && document.querySelector(":popover-open")) return; // closes it
    const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!(digit && choose(Number(digit[1]), event.shiftKey))) {
      const act = keys()[key];
      if (!act) return;
      act(event.shiftKey);
    }
    event.preventDefault();
  });
}

// A button that was clicked gives the keys back to the page.
document.addEventListener("click", (event) => {
  if (event.detail > 0) event.target.closest("button")?.blur();
});
$("#theme").onclick = changeTheme;

