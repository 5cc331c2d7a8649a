// Checks the texts of a policy while they are typed: the server says what it reads in them, and what the linter finds.
import { morph } from "./morph.js";

const PAUSE_MS = 400;
const editor = document.querySelector("#editor");
const checked = document.querySelector("#checked");
const csrf = document.querySelector('meta[name="csrf"]').content;
let timer = 0;
let latest = 0;

async function check() {
  const number = ++latest;
  const request = { method: "POST", headers: { "X-CSRF-Token": csrf }, body: new FormData(editor) };
  const answer = await fetch(editor.dataset.check, request).catch(() => null);
  const html = answer?.ok ? await answer.text() : null;
  if (number !== latest) {
    return; // the text has changed since
  }
  if (html === null) {
    checked.querySelector("[role=status]").textContent = editor.dataset.failed;
  } else {
    morph(checked, html);
  }
}

editor.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(check, PAUSE_MS);
});
