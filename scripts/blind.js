// A blind test (ABX): X is the original or a codec, drawn anew for each answer. Stands on what
// listening.js shows and hears.

const blind = {
  on: false, rival: 1, x: 0, take: "x", right: 0, answers: 0,

  start() {
    if (versions().length < 2) return;
    const rival = state.version || Math.min(state.last, versions().length - 1);
    Object.assign(this, { on: true, rival, right: 0, answers: 0 });
    $("#rival").value = rival;
    this.draw();
    this.hear("x");
  },

  stop() {
    this.on = false;
    show({});
    draw(); // the window may have changed meanwhile
  },

  draw() {
    this.x = crypto.getRandomValues(new Uint8Array(1))[0] & 1 ? this.rival : 0;
  },

  version() {
    return { a: 0, b: this.rival, x: this.x }[this.take];
  },

  hear(take) {
    this.take = take;
    if (!player.loop) player.repeat(all());
    show({});
    if (!player.playing) play();
    this.fill();
  },

  answer(take) {
    this.answers += 1;
    if (this.x === (take === "a" ? 0 : this.rival)) this.right += 1;
    this.draw();
    this.hear("x");
  },

  fill() {
    press("[data-take]", (button) => button.dataset.take === this.take);
    for (const name of document.querySelectorAll("#test button span")) {
      name.textContent = versions()[this.rival].codec;
    }
    const { right, answers } = this;
    const chance = (chanceOf(right, answers) * 100).toPrecision(2);
    $("#score").textContent = answers === 0 ? "" : `${right} of ${answers} right. `
      + `Guessing does as well or better in ${chance} % of all tests.`;
  },
};

/** How likely guesses are right `right` times or more of `answers`. */
function chanceOf(right, answers) {
  let ways = 1, sum = 0; // ways to be right `k` times
  for (let k = 0; k <= answers; k += 1) {
    if (k >= right) sum += ways;
    ways = (ways * (answers - k)) / (k + 1);
  }
  return sum / 2 ** answers;
}

function fillRivals() {
  const results = versions().slice(1);
  $("#rival").replaceChildren(...results.map(({ codec }, index) =>
    element("option", { value: index + 1 }, codec)));
  if (blind.on) blind.stop();
}

const blindKeys = {
  Escape: () => blind.stop(),
  a: (shift) => (shift ? blind.answer("a") : blind.hear("a")),
  b: (shift) => (shift ? blind.answer("b") : blind.hear("b")),
  x: () => blind.hear("x"),
};

$("#blind").onclick = () => (blind.on ? blind.stop() : blind.start());
$("#rival").onchange = (event) => {
  Object.assign(blind, { rival: Number(event.target.value), right: 0, answers: 0 });
  blind.draw();
  blind.hear("x");
};
for (const button of document.querySelectorAll("[data-take]")) {
  button.onclick = () => blind.hear(button.dataset.take);
}
for (const button of document.querySelectorAll("[data-answer]")) {
  button.onclick = () => blind.answer(button.dataset.answer);
}
