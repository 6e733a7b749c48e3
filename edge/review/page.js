// Keys and saving without loading the page again. Without this script the forms work all the same.
"use strict";

const cards = [...document.querySelectorAll(".card")];
let here = -1;

function go(to, scroll = true) {
  if (to < 0 || to >= cards.length) return false;
  if (here >= 0) cards[here].classList.remove("here");
  here = to;
  cards[here].classList.add("here");
  if (scroll) cards[here].scrollIntoView({ block: "start" });
  return true;
}

function say(card, text, wrong) {
  const line = card.querySelector("output");
  line.textContent = text;
  line.classList.toggle("wrong", wrong);
}

async function save(form, button) {
  const card = form.closest(".card");
  const body = new URLSearchParams(new FormData(form));
  if (button && button.name) body.set(button.name, button.value);
  let answer;
  try {
    const reply = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/json" } });
    answer = await reply.json();
    if (!reply.ok) throw new Error(answer.error);
  } catch (error) {
    say(card, `Not saved: ${error.message}`, true);
    return;
  }
  card.classList.add("done");
  card.querySelector("h2").textContent = answer.label;
  say(card, `Saved as ${answer.label}, by ${answer.who}.`, false);
  for (const [state, count] of Object.entries(answer.counts)) {
    const place = document.querySelector(`[data-count="${state}"]`);
    if (place) place.textContent = count;
  }
  if (form.elements.other) form.elements.other.value = "";
  document.activeElement.blur();
  go(cards.indexOf(card) + 1);
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  save(event.target, event.submitter);
});

document.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (card && !event.target.closest("form")) go(cards.indexOf(card), false);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") document.activeElement.blur();
  if (event.target.matches("input")) return;
  if (event.key === "j") return void go(here + 1);
  if (event.key === "k") return void go(here - 1);
  if (here < 0 || !/^[ac1-5]$/.test(event.key)) return;
  const target = cards[here].querySelector(`[data-key="${event.key}"]`);
  if (!target) return;
  event.preventDefault();
  if (target.matches("input")) target.focus();
  else target.form.requestSubmit(target);
});

if (cards.length && !location.hash) go(0, false);
