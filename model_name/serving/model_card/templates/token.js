"use strict";

// Behind a path prefix, the URL of the page may lack its last slash.
const base = location.origin + location.pathname.replace(/\/?$/, "/");
const tokenKey = `model-name token of ${base}`;
let token = storedToken();

// The storage of a session belongs to one tab. Where a browser forbids it, the token lasts as long as the page.
function storedToken() {
  try {
    return sessionStorage.getItem(tokenKey) ?? "";
  } catch {
    return "";
  }
}

function storeToken(text) {
  token = text.trim();
  try {
    if (token) sessionStorage.setItem(tokenKey, token);
    else sessionStorage.removeItem(tokenKey);
  } catch {
    // as above
  }
}

// A page without a field for the token is that of a server which requires none.
function authorization() {
  return token && document.getElementById("token") ? { authorization: `Bearer ${token}` } : {};
}

const gate = document.getElementById("gate");
if (gate) {
  gate.addEventListener("submit", (event) => {
    event.preventDefault();
    storeToken(gate.elements.token.value);
    openCard();
  });
  if (token) openCard();
  else showGate("");
}

async function openCard() {
  const button = gate.querySelector("button");
  button.disabled = true;
  try {
    const response = await fetch(base, { headers: { accept: "text/html", ...authorization() } });
    // The styles are those of this page already; with another nonce they would be reported as blocked.
    const text = (await response.text()).replace(/<style.*?<\/style>/s, "");
    const page = new DOMParser().parseFromString(text, "text/html");
    if (response.status === 401) {
      storeToken("");
      return showGate(gate.elements.token.value ? "The server does not accept this token (401)" : "The token is no longer valid (401); enter the current one");
    }
    if (!response.ok) return showGate(`The server has failed (${response.status}); try again in a moment`);
    if (!page.getElementById("card")) return showGate("Enter the token");
    document.title = page.title;
    document.body.replaceChildren(page.querySelector("header"), page.querySelector("main"), page.getElementById("card"));
    startCard();
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  } catch (error) {
    showGate(`No response: ${error.message}`);
  } finally {
    button.disabled = false;
  }
}

function showGate(problem) {
  const message = document.getElementById("token-error");
  const input = gate.elements.token;
  gate.hidden = false;
  message.textContent = problem;
  message.hidden = !problem;
  if (problem) input.setAttribute("aria-invalid", "true");
  input.focus();
  input.select();
}
