// The keys of the page Review, the blurred text, and coming back by itself. Without this script, all works by buttons.

const review = document.querySelector("#review");
const state = review.dataset.state;
let sent = false;

function isField(element) {
  const typed = element.tagName === "INPUT" && !["radio", "checkbox"].includes(element.type);
  return typed || ["TEXTAREA", "SELECT"].includes(element.tagName);
}

// Single keys can get in the way of speech input and screen readers, so a person can turn them off.
const toggle = document.querySelector("#keys");
let on = localStorage.getItem("review-keys") !== "off";
function showToggle() {
  toggle.setAttribute("aria-pressed", String(on));
}
if (toggle) {
  showToggle();
  toggle.addEventListener("click", () => {
    on = !on;
    localStorage.setItem("review-keys", on ? "on" : "off");
    showToggle();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && isField(event.target)) {
    event.target.blur();
    return;
  }
  if (!on || event.ctrlKey || event.altKey || event.metaKey || event.repeat || isField(event.target)) {
    return;
  }
  const element = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!element) {
    return;
  }
  event.preventDefault();
  if (isField(element)) {
    element.focus();
  } else {
    element.click();
  }
});

document.addEventListener("submit", (event) => {
  // A key that is pressed twice must not decide about the next item.
  if (sent && event.target.method === "post") {
    event.preventDefault();
    return;
  }
  sent = event.target.method === "post";
});

const reveal = document.querySelector("#reveal");
if (reveal) {
  reveal.addEventListener("submit", (event) => {
    event.preventDefault();
    const post = document.querySelector("#post");
    const shown = post.classList.toggle("blurred") === false;
    post.inert = !shown;
    reveal.querySelector("button").setAttribute("aria-expanded", String(shown));
  });
}

if (state === "item" || state === "break") {
  setTimeout(
    () => {
      if (state === "break") {
        location.replace("/review");
      } else {
        document.querySelector("#ended").textContent = review.dataset.ended;
        document.querySelector("#ended").className = "notice away";
      }
    },
    // Time that is left, by the server's clock: this machine's may be wrong.
    Math.min(Number(review.dataset.leftMs) + 500, 2 ** 31 - 1),
  );
}

const first = document.querySelector("#queue").dataset.open;
document.addEventListener("live", () => {
  const { away, open } = document.querySelector("#queue").dataset;
  const isBack = state === "away" && away === "no";
  const isGone = ["idle", "nothing"].includes(state) && away === "yes";
  if (isBack || isGone || (state === "nothing" && open !== first)) {
    location.replace("/review");
  }
});

const heading = document.querySelector("#item");
if (heading) {
  heading.focus();
}
