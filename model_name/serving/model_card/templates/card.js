let card, form, output, button;
let isBusy = false;

function startCard() {
  card = JSON.parse(document.getElementById("card").textContent);
  form = document.getElementById("form");
  output = document.getElementById("output");
  button = form.querySelector("button[type=submit]");
  form.hidden = false;
  for (const link of document.querySelectorAll("a[data-path]")) {
    link.href = base + link.dataset.path;
    if ("guarded" in link.dataset) link.addEventListener("click", showGuarded);
  }
  for (const code of document.querySelectorAll("figure code")) {
    code.textContent = code.textContent.replaceAll(card.server, base.replace(/\/$/, ""));
    code.closest("figure").querySelector("figcaption").append(copyButton(code));
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  form.addEventListener("reset", () => {
    clearErrors();
    output.replaceChildren();
    setTimeout(showToken); // after the reset, which empties the field
  });
  form.addEventListener("input", (event) => clearErrors(event.target.id));
  const tokenField = document.getElementById("token");
  if (!tokenField) return;
  showToken();
  tokenField.addEventListener("input", () => storeToken(tokenField.value));
  document.getElementById("forget").addEventListener("click", () => {
    storeToken("");
    location.reload();
  });
}

function showToken() {
  const tokenField = document.getElementById("token");
  if (tokenField) tokenField.value = token;
}

async function predict() {
  if (isBusy) return;
  clearErrors();
  const read = card.fields.map((field) => [field, fieldValue(field)]);
  const wrong = read.filter(([, { problem }]) => problem).map(([field, { problem }]) => [field, problem]);
  if (wrong.length) return showErrors("Not sent", wrong, "");
  // fromEntries, because a column may be named __proto__.
  const body = { instances: [Object.fromEntries(read.map(([field, { value }]) => [field.name, value]))] };
  const interval = document.getElementById("interval")?.value;
  if (interval) body.parameters = { interval: Number(interval) };
  const headers = { "content-type": "application/json", ...authorization() };
  setBusy(true);
  try {
    const started = performance.now();
    const response = await fetch(base + card.predict, { method: "POST", headers, body: JSON.stringify(body) });
    const text = await response.text();
    showResponse(response, parseJson(text), text, performance.now() - started, interval);
  } catch (error) {
    showErrors("No response", [], `${error.message}. Is the server running?`);
  } finally {
    setBusy(false);
  }
}

function setBusy(now) {
  isBusy = button.disabled = now;
  output.setAttribute("aria-busy", now);
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function fieldValue({ id, inputType, acceptsEmpty }) {
  const input = document.getElementById(id);
  if (inputType === "select") return { value: JSON.parse(input.value) };
  if (input.validity.badInput) return { problem: inputType === "number" ? "not a number" : "not a complete date and time" };
  if (input.value === "" && !acceptsEmpty) return { value: null };
  if (inputType === "number") return { value: Number(input.value) };
  if (inputType === "datetime" && input.value.length === 16) return { value: `${input.value}:00` };
  return { value: input.value };
}

function showResponse(response, body, text, milliseconds, interval) {
  if (!response.ok) {
    const [wrong, rest] = splitByField(typeof body?.error === "string" ? body.error : text.slice(0, 500));
    if (response.status === 401) markToken();
    return showErrors(`${describeStatus(response.status)} (${response.status})`, wrong, rest);
  }
  if (!Array.isArray(body?.predictions)) return showErrors("The response is not a prediction", [], text.slice(0, 500));
  const [prediction] = body.predictions;
  const isInterval = prediction !== null && typeof prediction === "object";
  const parts = [
    createElement("p", "soft small", card.target),
    createElement("p", "big", formatValue(isInterval ? prediction.prediction : prediction)),
  ];
  if (isInterval) {
    const ends = `${formatValue(prediction.lower)} to ${formatValue(prediction.upper)}`;
    parts.push(createElement("p", "", `${ends} in ${formatValue(100 * Number(interval))} % of cases`));
  }
  if (body.probabilities?.[0]) parts.push(probabilityBars(body.probabilities[0]));
  parts.push(createElement("p", "soft small", `in ${Math.max(1, Math.round(milliseconds))} ms`), rawJson(text));
  const semver = response.headers.get("x-model-semver");
  if (semver && semver !== card.semver) {
    parts.push(createElement("p", "problem", `The response is from version ${semver}, this page is of ${card.semver}. Reload the page.`));
  }
  output.replaceChildren(...parts);
}

function describeStatus(status) {
  if (status === 401 || status === 403) return "The server requires a valid token";
  if (status === 404) return "The model does not exist";
  if (status === 429) return "The server is overloaded; try again in a moment";
  if (status === 503) return "The model is not ready; try again in a moment";
  return status < 500 ? "The server rejects this row" : "The server has failed";
}

function markToken() {
  const message = document.getElementById("token-error");
  if (!message) return;
  const input = document.getElementById("token");
  input.setAttribute("aria-invalid", "true");
  message.textContent = token ? "the server does not accept this token" : "enter the token";
  message.hidden = false;
  input.focus();
  input.select();
}

// A link cannot send the token: the document is fetched and shown above the page.
async function showGuarded(event) {
  event.preventDefault();
  const link = event.currentTarget;
  const dialog = createElement("dialog", "");
  const pre = createElement("pre", "");
  pre.tabIndex = 0;
  const close = createElement("button", "", "Close");
  close.type = "button";
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  const caption = createElement("figcaption", "", link.textContent);
  caption.append(close);
  const figure = createElement("figure", "");
  figure.append(caption, pre);
  dialog.append(figure);
  try {
    const response = await fetch(link.href, { headers: authorization() });
    const text = await response.text();
    pre.textContent = response.ok ? JSON.stringify(parseJson(text), null, 2) : `${describeStatus(response.status)} (${response.status})`;
  } catch (error) {
    pre.textContent = `No response: ${error.message}. Is the server running?`;
  }
  document.body.append(dialog);
  dialog.showModal();
}

function probabilityBars(probabilities) {
  const descending = Object.entries(probabilities).sort(([, left], [, right]) => right - left);
  const box = createElement("div", "bars");
  for (const [label, share] of descending.slice(0, 20)) {
    const track = createElement("span", "track");
    const fill = createElement("span", "fill");
    fill.style.width = `${100 * share}%`;
    track.append(fill);
    track.setAttribute("aria-hidden", "true");
    box.append(createElement("span", "", label === "" ? "(empty text)" : label), track, createElement("span", "n", formatPercent(share)));
  }
  if (descending.length > 20) box.append(createElement("span", "soft small", `and ${descending.length - 20} more`));
  return box;
}

function showErrors(title, wrong, rest) {
  const parts = [createElement("p", "problem", title)];
  if (rest) parts.push(createElement("p", "", rest));
  const list = createElement("ul", "");
  for (const [field, reason] of wrong) {
    const input = document.getElementById(field.id);
    const message = document.getElementById(`${field.id}-error`);
    input.setAttribute("aria-invalid", "true");
    message.textContent = reason;
    message.hidden = false;
    const item = createElement("li", "");
    const link = createElement("a", "", field.name || "(no name)");
    link.href = `#${field.id}`;
    link.addEventListener("click", (event) => {
      event.preventDefault();
      input.focus();
    });
    item.append(link, `: ${reason}`);
    list.append(item);
  }
  if (wrong.length) {
    parts.push(list);
    document.getElementById(wrong[0][0].id).focus();
  }
  output.replaceChildren(...parts);
}

// An error is `COLUMN: REASON; COLUMN, row 0: REASON; and 3 more`; names and reasons may contain any characters.
function splitByField(message) {
  const wrong = [];
  const rest = [];
  let at = 0;
  while (at < message.length) {
    const start = at + (matchField(message, at)?.length ?? 0);
    let end = message.indexOf("; ", start);
    while (end !== -1 && !matchField(message, end + 2) && !/^and [0-9]+ more$/.test(message.slice(end + 2))) {
      end = message.indexOf("; ", end + 1);
    }
    if (end === -1) end = message.length;
    const reason = message.slice(start, end);
    const field = matchField(message, at)?.field;
    if (field) wrong.push([field, reason]);
    else rest.push(reason);
    at = end + 2;
  }
  return [wrong, rest.join("; ")];
}

function matchField(message, at) {
  let longest = null;
  for (const field of card.fields) {
    for (const prefix of [`${field.name}: `, `${field.name}, row 0: `]) {
      if (message.startsWith(prefix, at) && prefix.length > (longest?.length ?? 0)) longest = { field, length: prefix.length };
    }
  }
  return longest;
}

function clearErrors(id) {
  const tokenError = document.getElementById("token-error");
  if (tokenError && (id === undefined || id === "token")) {
    document.getElementById("token").removeAttribute("aria-invalid");
    tokenError.hidden = true;
  }
  for (const field of card.fields) {
    if (id !== undefined && field.id !== id) continue;
    document.getElementById(field.id).removeAttribute("aria-invalid");
    document.getElementById(`${field.id}-error`).hidden = true;
  }
}

function copyButton(code) {
  const copy = createElement("button", "", "Copy");
  copy.type = "button";
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      // Without TLS there is no clipboard API; the user can copy the selection.
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
  return copy;
}

function rawJson(text) {
  const details = createElement("details", "");
  const pre = createElement("pre", "", text);
  pre.tabIndex = 0;
  details.append(createElement("summary", "", "As JSON"), pre);
  return details;
}

function formatValue(value) {
  if (value === null || value === undefined) return "no number";
  if (value === "") return "(empty text)";
  return typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 6 }) : String(value);
}

function formatPercent(share) {
  return share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

function createElement(tag, style, text) {
  const element = document.createElement(tag);
  if (style) element.className = style;
  if (text !== undefined) element.textContent = text;
  return element;
}

if (document.getElementById("card")) startCard();
