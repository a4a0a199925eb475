/** A model card, Markdown, as elements: headings, paragraphs, lists, tables, code. Never as markup of its own. */

import { make } from "./dom.js";

/** Elements of a card. Of its front matter the licence is shown, first. */
export function cardElements(markdown) {
  const [, facts = "", text] = /^(?:---\n(.*?)\n---\n)?(.*)$/s.exec(markdown);
  const lines = text.split("\n");
  const licence = /^licence: (.+)$/m.exec(facts);
  const elements = licence ? [make("p", {}, make("strong", {}, "Licence: "), licence[1])] : [];
  while (lines.length) {
    const block = BLOCKS.find(({ begins }) => begins.test(lines[0]));
    const taken = [lines.shift()];
    while (lines.length && block.goesOn(lines[0])) taken.push(lines.shift());
    const element = block.make(taken);
    if (element) elements.push(element);
  }
  return elements;
}

const isText = (line) => /\S/.test(line) && !/^(#|\||- |\* |```| {4})/.test(line);

const BLOCKS = [
  { begins: /^\s*$/, goesOn: () => false, make: () => null },
  { begins: /^#+ /, goesOn: () => false, make: ([line]) => heading(line) },
  { begins: /^\|/, goesOn: (line) => line.startsWith("|"), make: table },
  { begins: /^[-*] /, goesOn: (line) => /^([-*] |  \S)/.test(line), make: list },
  {
    begins: /^ {4}/,
    goesOn: (line) => /^( {4}|\s*$)/.test(line),
    make: (lines) => code(lines.map((line) => line.slice(4))),
  },
  { begins: /^/, goesOn: isText, make: (lines) => make("p", {}, ...inline(lines.join(" "))) },
];

const heading = (line) => make(line.startsWith("# ") ? "h3" : "h4", {}, ...inline(line.replace(/^#+ /, "")));
const code = (lines) => make("pre", { tabIndex: 0 }, lines.join("\n").trimEnd());

function list(lines) {
  const items = lines
    .join("\n")
    .split(/^[-*] /m)
    .slice(1);
  return make("ul", {}, ...items.map((item) => make("li", {}, ...inline(item.replaceAll(/\s+/g, " ").trim()))));
}

function table(lines) {
  const rows = lines.map((line) =>
    line
      .replace(/^\||\|\s*$/g, "")
      .split("|")
      .map((cell) => cell.trim()),
  );
  const row = (cells, tag) => make("tr", {}, ...cells.map((cell) => make(tag, {}, ...inline(cell))));
  const [names, , ...values] = rows;
  const body = make("tbody", {}, ...values.map((cells) => row(cells, "td")));
  return make("div", { className: "wide", tabIndex: 0 }, make("table", {}, make("thead", {}, row(names, "th")), body));
}

/** `code` and **strong** within a line; everything else is text. */
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
    if (/^`.+`$/.test(part)) return make("code", {}, part.slice(1, -1));
    if (/^\*\*.+\*\*$/.test(part)) return make("strong", {}, part.slice(2, -2));
    return part;
  });
}
