// The page: log in, read everything once, then follow the events. Nothing is polled but relative times.

import { ApiError, get, post } from "./api.js";
import { showDiagnostic, showDiagnostics, tickDiagnostics } from "./diagnostics.js";
import { byId, setText, toast } from "./dom.js";
import { refreshFiles, tickFiles } from "./files.js";
import { refreshBlocklist, refreshPeers, showBlocklist, tickPeers } from "./peers.js";
import { refreshTraces, startTraces, traceArrived } from "./trace.js";
import { showStats, tickStats } from "./transports.js";
import { showTransfer, showTransfers, startForms, tickTransfers } from "./transfers.js";

const RETRY_MS = 2000;
let stream = null;

function setLive(state) {
  byId("live").dataset.state = state;
  setText(byId("live"), state);
}

function show(part) {
  byId("login").hidden = part !== "login";
  byId("dashboard").hidden = part !== "dashboard";
  byId("logout").hidden = part !== "dashboard";
  if (part === "login") {
    setLive("logged out");
    setText(byId("node"), "");
    byId("token").focus();
  }
}

async function login(token) {
  await post("/api/login", { token });
  byId("token").value = "";
  await start();
}

async function start() {
  try {
    const [node] = await Promise.all([get("/api/node").catch(nodeUnknown), readAll()]);
    setText(byId("node"), node ? `${node.node} · ${node.name}` : "");
    show("dashboard");
    follow();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return show("login");
    setLive("unreachable");
    setTimeout(start, RETRY_MS);
  }
}

/** Without its chunk service a node does not know its name; everything else still shows. */
function nodeUnknown(error) {
  if (error.status === 401) throw error;
  return null;
}

/** Without its chunk service a node does not know its files; everything else still shows. */
function filesUnknown(error) {
  if (error.status === 401) throw error;
}

async function readAll() {
  const [stats, transfers, found] = await Promise.all([
    get("/api/stats"),
    get("/api/transfers"),
    get("/api/diagnostics"),
    refreshTraces(),
    refreshPeers(),
    refreshBlocklist(),
    refreshFiles().catch(filesUnknown),
  ]);
  showStats(stats);
  showTransfers(transfers);
  showDiagnostics(found);
}

function follow() {
  stream?.close();
  stream = new EventSource("/api/events");
  const on = (name, handler) => stream.addEventListener(name, (event) => handler(JSON.parse(event.data)));
  let opened = false;
  stream.addEventListener("open", () => {
    setLive("live");
    if (opened) readAll().catch(() => {}); // what happened while we were away
    opened = true;
  });
  stream.addEventListener("error", () => {
    setLive("reconnecting");
    // A browser does not try again after an answer that is no stream: the session may have ended.
    if (stream.readyState === EventSource.CLOSED) setTimeout(start, RETRY_MS);
  });
  on("stats", showStats);
  on("transfer", showTransfer);
  on("trace", traceArrived);
  on("link", () => refreshPeers().catch(() => {}));
  on("status", () => refreshPeers().catch(() => {}));
  on("resync", () => readAll().catch(() => {}));
  on("diagnostic", showDiagnostic);
  on("blocklist", showBlocklist);
}

/** `#token=…` is used once and leaves the address bar and the history before anything else happens. */
function takeToken() {
  const found = /^#token=(.+)$/.exec(window.location.hash);
  if (!found) return "";
  window.history.replaceState(null, "", window.location.pathname);
  try {
    return decodeURIComponent(found[1]);
  } catch {
    return "";
  }
}

byId("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setText(byId("login-error"), "");
  try {
    await login(byId("token").value.trim());
  } catch (error) {
    setText(byId("login-error"), error.message);
  }
});

byId("logout").addEventListener("click", async () => {
  stream?.close();
  await post("/api/logout", {}).catch((error) => toast(error.message, "error"));
  show("login");
});

startForms();
startTraces();
setInterval(() => {
  tickStats();
  tickTransfers();
  tickFiles();
  tickPeers();
  tickDiagnostics();
}, 1000);

const token = takeToken();
if (token) {
  login(token).catch((error) => {
    show("login");
    setText(byId("login-error"), error.message);
  });
} else {
  start();
}
