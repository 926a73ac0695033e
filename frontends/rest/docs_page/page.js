// Shows openapi.json, and sends requests that the reader has filled in. Text of the document and of answers is only
// ever put into text nodes.
"use strict";

const LONGEST_SHOWN = 100000; // characters of an answer

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick" || key === "onchange" || key === "onsubmit") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// A part of the document that may be a reference to another.
function resolve(api, part) {
  while (part && part.$ref) {
    part = part.$ref.slice(2).split("/").reduce((found, key) => found[key], api);
  }
  return part;
}

// A schema in words; a schema that has a name is described once, where it is asked for.
function describe(api, schema, depth = 0) {
  if (schema.$ref && depth) return schema.$ref.split("/").pop();
  schema = resolve(api, schema);
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return choices.map((one) => describe(api, one, depth + 1)).join(" | ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") {
    return `[${describe(api, schema.items, depth + 1)}, …]`;
  }
  if (schema.type === "object") {
    const space = "  ".repeat(depth + 1);
    const members = Object.entries(schema.properties || {}).map(([name, member]) => {
      const optional = (schema.required || []).includes(name) ? "" : "?";
      return `${space}${name}${optional}: ${describe(api, member, depth + 1)}`;
    });
    if (typeof schema.additionalProperties === "object") {
      members.push(`${space}NAME: ${describe(api, schema.additionalProperties, depth + 1)}`);
    }
    return members.length ? `{\n${members.join(",\n")}\n${"  ".repeat(depth)}}` : "{}";
  }
  return schema.type || "any";
}

// The schemas that a schema names, itself first, each once.
function described(api, schema) {
  const texts = [];
  const waiting = [["", schema]];
  const seen = new Set();
  while (waiting.length) {
    const [name, part] = waiting.shift();
    texts.push((name ? `${name} = ` : "") + describe(api, part));
    for (const found of JSON.stringify(resolve(api, part)).matchAll(/"#\/components\/schemas\/(\w+)"/g)) {
      if (seen.has(found[1])) continue;
      seen.add(found[1]);
      waiting.push([found[1], api.components.schemas[found[1]]]);
    }
  }
  return texts.join("\n\n");
}

function table(heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

function answersTable(api, operation) {
  const rows = Object.entries(operation.responses).map(([status, given]) => {
    const answer = resolve(api, given);
    const content = answer.content && Object.values(answer.content)[0];
    const name = content && content.schema && content.schema.$ref ? content.schema.$ref.split("/").pop() : "";
    return [status, answer.description, name];
  });
  return table(["Status", "Meaning", "Body"], rows);
}

function bodyPart(api, operation, id) {
  if (!operation.requestBody) return { parts: [], read: () => undefined };
  const content = operation.requestBody.content["application/json"];
  const text = make("textarea", { id: `${id}-body`, spellcheck: "false" });
  const names = Object.keys(content.examples || {});
  const show = (name) => { text.value = JSON.stringify(content.examples[name].value, null, 1); };
  const choice = make("select", { id: `${id}-example` }, ...names.map((name) => make("option", {}, name)));
  choice.onchange = () => show(choice.value);
  if (names.length) show(names[0]);
  const parts = [
    make("label", { for: `${id}-example` }, "Example"), choice,
    make("label", { for: `${id}-body` }, "Body"), text,
    make("details", {}, make("summary", {}, "Form of the body"), make("pre", { tabindex: "0" }, described(api, content.schema))),
  ];
  return { parts, read: () => text.value };
}

async function send(method, path, body, output) {
  output.replaceChildren("…");
  const started = performance.now();
  try {
    const response = await fetch(path, { method, body });
    const text = await response.text();
    const duration = Math.round(performance.now() - started);
    const shown = text.length > LONGEST_SHOWN ? `${text.slice(0, LONGEST_SHOWN)}… (${text.length} characters)` : text;
    const line = `${response.status} ${response.statusText}, ${duration} ms`;
    output.replaceChildren(
      make("p", { class: response.ok ? "good" : "bad" }, line),
      make("pre", { tabindex: "0" }, shown || "(no body)"),
    );
  } catch (error) {
    output.replaceChildren(make("p", { class: "bad" }, `No answer: ${error.message}`));
  }
}

function tryForm(api, method, path, item, operation, id) {
  const fields = (item.parameters || []).map((parameter) => {
    const attributes = { id: `${id}-${parameter.name}`, name: parameter.name, required: "", autocomplete: "off" };
    if (parameter.name === "model") attributes.list = "models";
    return make("input", attributes);
  });
  const labels = (item.parameters || []).map((parameter) =>
    make("label", { for: `${id}-${parameter.name}` }, `${parameter.name}: ${parameter.description}`));
  const body = bodyPart(api, operation, id);
  const output = make("div", { role: "status", "aria-live": "polite", class: "answer" });
  const form = make("form", {}, ...labels.flatMap((label, index) => [label, fields[index]]), ...body.parts,
    make("button", { type: "submit" }, "Send"), output);
  form.onsubmit = (event) => {
    event.preventDefault();
    const filled = fields.reduce((text, field) => text.replace(`{${field.name}}`, encodeURIComponent(field.value)), path);
    send(method.toUpperCase(), `.${filled}`, body.read(), output);
  };
  return form;
}

function operationPart(api, method, path, item, operation) {
  const id = operation.operationId;
  const summary = make("summary", {}, make("span", { class: "method" }, method.toUpperCase()),
    make("code", {}, path), " ", make("span", { class: "what" }, operation.summary));
  const content = make("div", {}, make("p", {}, operation.description),
    make("h3", {}, "Answers"), answersTable(api, operation),
    make("h3", {}, "Try it"), tryForm(api, method, path, item, operation, id));
  return make("details", { class: "operation", id }, summary, content);
}

function show(api) {
  document.title = api.info.title;
  document.getElementById("title").textContent = `${api.info.title}: REST API`;
  document.getElementById("description").textContent = api.info.description;
  const main = document.getElementById("operations");
  const contents = document.getElementById("contents");
  for (const tag of api.tags) {
    const section = make("section", {}, make("h2", {}, tag.name));
    const list = make("ul");
    for (const [path, item] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(item)) {
        if (method === "parameters" || method === "head" || !operation.tags.includes(tag.name)) continue;
        section.append(operationPart(api, method, path, item, operation));
        list.append(make("li", {}, make("a", { href: `#${operation.operationId}` }, operation.summary)));
      }
    }
    contents.append(list);
    main.append(section);
  }
  document.getElementById("state").remove();
  main.setAttribute("aria-busy", "false");
}

// The names of the models that are there, to choose from.
async function offerModels() {
  const response = await fetch("./v1/config");
  if (!response.ok) return;
  const names = Object.keys(await response.json());
  document.body.append(make("datalist", { id: "models" }, ...names.map((name) => make("option", { value: name }))));
  for (const field of document.querySelectorAll("input[name=model]")) field.value = field.value || names[0] || "";
}

// A link to an operation opens it.
function openChosen() {
  const chosen = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (chosen && chosen.tagName === "DETAILS") {
    chosen.open = true;
    chosen.scrollIntoView();
  }
}

async function start() {
  try {
    const response = await fetch("./openapi.json");
    if (!response.ok) throw new Error(`openapi.json: ${response.status}`);
    show(await response.json());
  } catch (error) {
    document.getElementById("state").textContent = `The document cannot be shown: ${error.message}`;
    return;
  }
  window.addEventListener("hashchange", openChosen);
  openChosen();
  await offerModels();
}

start();
