// What a test asks of a page: register at a PeerServer, dial, send, and say what came. The client is `peerjs`, as it is.
"use strict";

const state = { peer: null, connections: {}, received: [], closed: [], errors: [] };

const digest = async (bytes) =>
  Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)), (b) => b.toString(16).padStart(2, "0")).join("");

// Bytes that a test can make again, whatever the length: a counter over a prime.
const bytesOf = (length) => Uint8Array.from({ length }, (_, at) => at % 251);

function keep(connection) {
  state.connections[connection.peer] = connection;
  connection.on("data", (data) => state.received.push({ from: connection.peer, data }));
  connection.on("close", () => state.closed.push(connection.peer));
  connection.on("error", (error) => state.errors.push(error.type));
}

function register(id, options) {
  return new Promise((resolve) => {
    state.peer = new Peer(id, options);
    state.peer.on("connection", keep);
    state.peer.on("error", (error) => state.errors.push(error.type));
    state.peer.on("open", resolve);
  });
}

function dial(id, options) {
  return new Promise((resolve) => {
    const connection = state.peer.connect(id, options);
    keep(connection);
    connection.on("open", resolve);
  });
}

// Sends what `kind` names, of `length`; returns its digest as the other page computes it.
async function send(to, kind, length) {
  const bytes = bytesOf(length);
  if (kind === "text") {
    state.connections[to].send("é…😀".repeat(length));
    return JSON.stringify("é…😀".repeat(length));
  }
  const value = kind === "bytes" ? bytes.buffer : { text: "é…😀", list: [1, -2, 3.5, null, true], body: String(length).repeat(length) };
  state.connections[to].send(value);
  return kind === "bytes" ? await digest(bytes) : JSON.stringify(value);
}

async function lastReceived(count) {
  if (state.received.length < count) return null;
  const { data } = state.received[count - 1];
  return data instanceof ArrayBuffer || ArrayBuffer.isView(data) ? await digest(data) : JSON.stringify(data);
}
