/** Elements of the page. Text only ever becomes text: nothing here reads markup. */

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A new element with properties and children (elements or texts). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name === "for" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Say something to screen readers, politely. */
export function announce(sentence) {
  byId("news").textContent = sentence;
}
