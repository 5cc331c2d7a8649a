// Changes an element's content to what new HTML says, and leaves alone what is the same. So focus, selection and open
// details stay, and a screen reader does not begin again.

export function morph(element, html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  children(element, template.content);
}

function children(now, wanted) {
  const old = [...now.childNodes];
  const made = [...wanted.childNodes];
  made.forEach((node, index) => {
    const before = old[index];
    if (before === undefined) {
      now.append(node);
    } else if (before.nodeType !== node.nodeType || before.nodeName !== node.nodeName) {
      before.replaceWith(node);
    } else if (node.nodeType === Node.ELEMENT_NODE) {
      attributes(before, node);
      children(before, node);
    } else if (before.nodeValue !== node.nodeValue) {
      before.nodeValue = node.nodeValue;
    }
  });
  old.slice(made.length).forEach((node) => node.remove());
}

function attributes(now, wanted) {
  for (const { name, value } of wanted.attributes) {
    if (now.getAttribute(name) !== value) {
      now.setAttribute(name, value);
    }
  }
  for (const { name } of [...now.attributes]) {
    // What the reader opened stays open.
    if (!wanted.hasAttribute(name) && !(name === "open" && now.nodeName === "DETAILS")) {
      now.removeAttribute(name);
    }
  }
}
