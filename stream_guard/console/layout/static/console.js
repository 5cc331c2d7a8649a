// Keeps the parts of a page that move: elements with data-live, whose HTML the server sends as events.
import { morph } from "./morph.js";

const parts = new Map();
for (const element of document.querySelectorAll("[data-live]")) {
  parts.set(element.dataset.live, element);
}

const notice = document.querySelector("#connection");

function say(text) {
  notice.textContent = text;
  notice.className = text ? "notice away" : "";
}

function follow() {
  const query = new URLSearchParams([...parts.keys()].map((name) => ["part", name]));
  const events = new EventSource(`/live?${query}`);
  let lost = false;
  events.addEventListener("open", () => {
    lost = false;
    say("");
  });
  events.addEventListener("part", (event) => {
    const { part, html } = JSON.parse(event.data);
    const element = parts.get(part);
    morph(element, html);
    element.dispatchEvent(new CustomEvent("live", { bubbles: true }));
  });
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) {
      // The server answered, but not with events: the session has ended.
      say(document.body.dataset.signedOut);
      return;
    }
    if (!lost) {
      lost = true;
      const time = new Date().toISOString().slice(11, 19) + " UTC";
      say(document.body.dataset.lost.replace("[time]", time));
    }
  });
}

if (parts.size > 0) {
  follow();
}
