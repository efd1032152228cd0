// @ts-check
/**
 * Joins this page's BroadcastChannels of the given names to a swarmbridge node: what the page posts is heard by the
 * pages of other browsers on the same origin, and by the node.
 *
 *   <script type="module" src="http://127.0.0.1:9000/broadcast.js?channel=swarm-space-webtorrent"></script>
 *
 * before the module that opens the channel. `channel` may come several times; `token` where the node wants one.
 *
 * Tabs of one browser hear each other natively, as ever; what comes from elsewhere is dispatched in each tab for itself
 * and never posted natively, so that nothing is heard twice and no tab has to speak for others.
 *
 * What it has to say are events of `window`, each with a `detail`:
 *   swarmbridge:state    {state: "connecting" | "open" | "waiting", page}
 *   swarmbridge:present  {channel, pages}                   how many pages are on it
 *   swarmbridge:taken    {channel, number, listeners}       a post is with every worker; who was there to hear it
 *   swarmbridge:error    {cause, message, channel}          what was not sent, or lost, and why
 *
 * Protocol: docs/broadcast.md of swarmbridge.
 */

/** @typedef {{cause: string, message: string, channel: string}} Trouble */
/** @typedef {{number: number, value: Uint8Array, sent: boolean, takenAt: number}} Waiting */
/** @typedef {{next: number, posts: Waiting[], openedAt: number}} Outbox */

const VERSION = 1;
const MAX_VALUE_BYTES = 1992294;
const MAX_DEPTH = 32;
const WINDOW_BYTES = 4 * 2 ** 20;
const WINDOW_MESSAGES = 64;
/** What may wait while there is no worker; a post beyond it is an error at once. */
const MAX_WAITING_BYTES = 32 * 2 ** 20;
const MAX_WAITING_MESSAGES = 1024;
/** Acknowledged posts are kept this long: a worker that had them, alone, may die before it has handed them on. */
const KEEP_TAKEN_MS = 3000;
/** On coming back: how much earlier than we last heard something the worker is to begin. Doubles are known by their numbers. */
const OVERLAP_MS = 5000;
const MAX_SENDERS = 4096;
const RETRY_FIRST_MS = 100;
const RETRY_CAP_MS = 10000;
/** A worker that refuses this page will hardly change its mind soon. */
const RETRY_REFUSED_MS = 30000;
/** A socket that lived so long was of use: the next try is soon again. */
const PROVED_MS = 5000;
const CONNECT_MS = 5000;
const TICK_MS = 1000;
const PING_AFTER_MS = 3000;
const PONG_WITHIN_MS = 3000;

const CLOSE_REFUSED = 1008;
const CLOSE_TOO_LARGE = 1009;

const BROWSER_KEY = "swarmbridge:browser";
const VIEWS = [
  Int8Array,
  Uint8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
  DataView,
];
const DATE = 1, MAP = 2, SET = 3, VIEW = 4, UNDEFINED = 5, TEXT16 = 6;

// ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Why a value is not sent. */
class Unsendable extends Error {
  /** @param {string} cause @param {string} message */
  constructor(cause, message) {
    super(message);
    this.cause = cause;
  }
}

/** Writes MessagePack into a buffer that grows. */
class Writer {
  constructor() {
    this.bytes = new Uint8Array(256);
    this.view = new DataView(this.bytes.buffer);
    this.length = 0;
    /** @type {Set<object>} */
    this.within = new Set();
  }

  done() {
    return this.bytes.slice(0, this.length);
  }

  /** @param {number} count */
  room(count) {
    if (this.length + count > MAX_VALUE_BYTES + 1024) {
      throw new Unsendable("too_large", `a message of more than ${MAX_VALUE_BYTES} bytes; send it in parts`);
    }
    if (this.length + count <= this.bytes.length) return;
    const bytes = new Uint8Array(Math.max(2 * this.bytes.length, this.length + count));
    bytes.set(this.bytes.subarray(0, this.length));
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer);
  }

  /** @param {number} byte */
  u8(byte) {
    this.room(1);
    this.view.setUint8(this.length++, byte);
  }

  /** @param {number} number */
  u32(number) {
    this.room(4);
    this.view.setUint32(this.length, number);
    this.length += 4;
  }

  /** @param {Uint8Array} bytes */
  raw(bytes) {
    this.room(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  /** @param {Uint8Array} bytes */
  bin(bytes) {
    this.u8(0xc6);
    this.u32(bytes.length);
    this.raw(bytes);
  }

  /** @param {number} code @param {() => void} write */
  extension(code, write) {
    this.u8(0xc9);
    const at = this.length;
    this.u32(0);
    this.u8(code);
    write();
    this.view.setUint32(at, this.length - at - 5);
  }

  /** @param {number} number */
  number(number) {
    if (Number.isInteger(number) && Math.abs(number) < 2 ** 31 && !Object.is(number, -0)) {
      if (number >= 0 && number < 128) return this.u8(number);
      this.u8(0xd2);
      this.room(4);
      this.view.setInt32(this.length, number);
      this.length += 4;
      return undefined;
    }
    this.u8(0xcb);
    this.room(8);
    this.view.setFloat64(this.length, number);
    this.length += 8;
    return undefined;
  }

  /** @param {string} text @param {boolean} isKey */
  text(text, isKey = false) {
    if (hasHalfPair(text)) {
      if (isKey) throw new Unsendable("invalid", "a property's name that is no Unicode text");
      const units = new Uint8Array(2 * text.length);
      const view = new DataView(units.buffer);
      for (let at = 0; at < text.length; at++) view.setUint16(2 * at, text.charCodeAt(at), true);
      this.extension(TEXT16, () => this.raw(units));
      return;
    }
    const bytes = new TextEncoder().encode(text);
    this.u8(0xdb);
    this.u32(bytes.length);
    this.raw(bytes);
  }

  /** @param {unknown} value @param {number} depth */
  value(value, depth = MAX_DEPTH) {
    if (depth < 0) throw new Unsendable("too_large", `values in values more than ${MAX_DEPTH} deep`);
    switch (typeof value) {
      case "undefined":
        this.extension(UNDEFINED, () => {});
        return;
      case "boolean":
        this.u8(value ? 0xc3 : 0xc2);
        return;
      case "number":
        this.number(value);
        return;
      case "string":
        this.text(value);
        return;
      case "object":
        if (value === null) this.u8(0xc0);
        else this.object(value, depth);
        return;
      default:
        throw new Unsendable("invalid", `a ${typeof value} cannot leave this browser`);
    }
  }

  /** @param {object} value @param {number} depth */
  object(value, depth) {
    if (this.within.has(value)) throw new Unsendable("invalid", "a value that holds itself cannot leave this browser");
    this.within.add(value);
    const kind = kindOf(value);
    if (Array.isArray(value)) {
      this.u8(0xdd);
      this.u32(value.length);
      for (let at = 0; at < value.length; at++) this.value(value[at], depth - 1);
    } else if (kind === "ArrayBuffer") {
      this.bin(new Uint8Array(/** @type {ArrayBuffer} */ (value)));
    } else if (ArrayBuffer.isView(value)) {
      this.buffer(value);
    } else if (kind === "Date") {
      this.extension(DATE, () => {
        this.room(8);
        this.view.setFloat64(this.length, Date.prototype.getTime.call(value));
        this.length += 8;
      });
    } else if (kind === "Map") {
      const pairs = [.../** @type {Map<unknown, unknown>} */ (value)];
      this.collection(MAP, pairs.flatMap(([key, each]) => [key, each]), depth);
    } else if (kind === "Set") {
      this.collection(SET, [.../** @type {Set<unknown>} */ (value)], depth);
    } else if (kind === "Object") {
      const entries = Object.entries(value);
      this.u8(0xdf);
      this.u32(entries.length);
      for (const [key, each] of entries) {
        this.text(key, true);
        this.value(each, depth - 1);
      }
    } else {
      throw new Unsendable("invalid", `a value of the kind ${kind} cannot leave this browser`);
    }
    this.within.delete(value);
  }

  /** @param {ArrayBufferView} value */
  buffer(value) {
    const kind = VIEWS.findIndex((view) => kindOf(value) === view.name);
    if (kind < 0) throw new Unsendable("invalid", `a view of the kind ${kindOf(value)} cannot leave this browser`);
    this.extension(VIEW, () => {
      this.u8(kind);
      this.raw(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
    });
  }

  /** @param {number} code @param {unknown[]} members @param {number} depth */
  collection(code, members, depth) {
    this.extension(code, () => {
      this.u8(0xdd);
      this.u32(members.length);
      for (const each of members) this.value(each, depth - 1);
    });
  }
}

/** Reads MessagePack; whatever is wrong with it is a RangeError or a TypeError. */
class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  /** @param {number} count */
  skip(count) {
    const at = this.at;
    if (count > this.bytes.length - at) throw new RangeError("cut off");
    this.at += count;
    return at;
  }

  /** @param {number} count */
  take(count) {
    const at = this.skip(count);
    return this.bytes.subarray(at, at + count);
  }

  /** @param {number} width */
  length(width) {
    const at = this.skip(width);
    return width === 1 ? this.view.getUint8(at) : width === 2 ? this.view.getUint16(at) : this.view.getUint32(at);
  }

  /** @param {number} count */
  text(count) {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(this.take(count));
  }

  /** @param {number} count of UTF-16 units, halves of pairs among them */
  text16(count) {
    let found = "";
    for (let at = 0; at < count; at++) found += String.fromCharCode(this.view.getUint16(2 * at, true));
    return found;
  }

  /** @param {number} depth @returns {unknown} */
  value(depth = MAX_DEPTH + 1) {
    if (depth < 0) throw new RangeError("too deep");
    const head = this.view.getUint8(this.skip(1));
    if (head < 0x80) return head;
    if (head < 0x90) return this.object(head & 0x0f, depth);
    if (head < 0xa0) return this.list(head & 0x0f, depth);
    if (head < 0xc0) return this.text(head & 0x1f);
    if (head >= 0xe0) return head - 256;
    switch (head) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: case 0xc5: case 0xc6: return this.take(this.length(2 ** (head - 0xc4))).slice().buffer;
      case 0xc7: case 0xc8: case 0xc9: return this.extension(this.length(2 ** (head - 0xc7)), depth);
      case 0xca: return this.view.getFloat32(this.skip(4));
      case 0xcb: return this.view.getFloat64(this.skip(8));
      case 0xcc: return this.view.getUint8(this.skip(1));
      case 0xcd: return this.view.getUint16(this.skip(2));
      case 0xce: return this.view.getUint32(this.skip(4));
      case 0xcf: return Number(this.view.getBigUint64(this.skip(8)));
      case 0xd0: return this.view.getInt8(this.skip(1));
      case 0xd1: return this.view.getInt16(this.skip(2));
      case 0xd2: return this.view.getInt32(this.skip(4));
      case 0xd3: return Number(this.view.getBigInt64(this.skip(8)));
      case 0xd4: case 0xd5: case 0xd6: case 0xd7: case 0xd8: return this.extension(2 ** (head - 0xd4), depth);
      case 0xd9: case 0xda: case 0xdb: return this.text(this.length(2 ** (head - 0xd9)));
      case 0xdc: case 0xdd: return this.list(this.length(2 ** (head - 0xdb)), depth);
      case 0xde: case 0xdf: return this.object(this.length(2 ** (head - 0xdd)), depth);
      default: throw new TypeError("no MessagePack");
    }
  }

  /** @param {number} count @param {number} depth */
  list(count, depth) {
    if (count > this.bytes.length - this.at) throw new RangeError("cut off");
    const found = [];
    for (let each = 0; each < count; each++) found.push(this.value(depth - 1));
    return found;
  }

  /** @param {number} count @param {number} depth */
  object(count, depth) {
    /** @type {Record<string, unknown>} */
    const found = {};
    for (let each = 0; each < count; each++) {
      const key = this.value(0);
      if (typeof key !== "string") throw new TypeError("a key that is no string");
      // Defined, not assigned: "__proto__" is a property like others, as in a structured clone.
      Object.defineProperty(found, key, { value: this.value(depth - 1), writable: true, enumerable: true, configurable: true });
    }
    return found;
  }

  /** @param {number} count @param {number} depth @returns {unknown} */
  extension(count, depth) {
    const code = this.view.getInt8(this.skip(1));
    const inner = new Reader(this.take(count));
    switch (code) {
      case DATE: return new Date(inner.view.getFloat64(0));
      case UNDEFINED: return undefined;
      case TEXT16: return inner.text16(count / 2);
      case VIEW: {
        const kind = /** @type {typeof Uint8Array | undefined} */ (VIEWS[inner.view.getUint8(0)]);
        if (kind === undefined) throw new TypeError("a view that is not known");
        return new kind(inner.bytes.slice(1).buffer);
      }
      case MAP: case SET: {
        const members = inner.value(depth - 1);
        if (!Array.isArray(members)) throw new TypeError("a collection that is no list");
        if (code === SET) return new Set(members);
        const found = new Map();
        for (let at = 0; at < members.length; at += 2) found.set(members[at], members[at + 1]);
        return found;
      }
      default: throw new TypeError("an extension that is not known");
    }
  }
}

/** @param {object} value */
function kindOf(value) {
  return Object.prototype.toString.call(value).slice(8, -1);
}

/** @param {string} text */
function hasHalfPair(text) {
  return /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
}

/** One frame. @param {unknown[]} parts; a Uint8Array among them goes as bytes. */
function encodeFrame(parts) {
  const writer = new Writer();
  writer.u8(0x90 | parts.length);
  for (const part of parts) {
    if (part instanceof Uint8Array) writer.bin(part);
    else writer.value(part);
  }
  return writer.done();
}

/** @param {ArrayBuffer} data @returns {unknown[]} */
function decodeFrame(data) {
  const frame = new Reader(new Uint8Array(data)).value();
  if (!Array.isArray(frame)) throw new TypeError("no frame");
  return frame;
}

/** @param {Uint8Array} bytes */
function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// ── what is reported to the page ───────────────────────────────────────────────────────────────────────────────────────

/** @param {string} name @param {object} detail */
function tell(name, detail) {
  globalThis.dispatchEvent(new CustomEvent(`swarmbridge:${name}`, { detail }));
}

/** @param {string} cause @param {string} message @param {string} channel */
function complain(cause, message, channel = "") {
  tell("error", /** @type {Trouble} */ ({ cause, message, channel }));
}

/** @type {Record<string, string>} */
const WORDS = {
  forbidden: "this channel is not configured at the node (broadcast.channels)",
  too_large: "the message is larger than the node takes",
  no_listener: "nobody is on this channel: the message was heard by no one",
};

// ── which browser, which page ──────────────────────────────────────────────────────────────────────────────────────

/**
 * What tabs share that hear each other natively: kept where they share storage, which has the same bounds as a
 * BroadcastChannel. Raises what the browser raises where the page may not store anything.
 */
function browserId() {
  const kept = localStorage.getItem(BROWSER_KEY);
  if (kept && /^[0-9a-f]{32}$/.test(kept)) return kept;
  localStorage.setItem(BROWSER_KEY, hex(crypto.getRandomValues(new Uint8Array(16))));
  return localStorage.getItem(BROWSER_KEY) ?? "";
}

/** @param {string} text */
function fromHex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

// ── the socket ─────────────────────────────────────────────────────────────────────────────────────────────────────

class Bridge {
  /** @param {URL} url of the socket @param {string[]} names of channels */
  constructor(url, names) {
    this.url = url;
    this.names = new Set(names);
    this.secret = crypto.getRandomValues(new Uint8Array(16));
    this.browser = browserId();
    this.page = "";
    this.state = "connecting";
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {Map<string, Set<WeakRef<BroadcastChannel>>>} */
    this.channels = new Map();
    /** @type {Map<string, Outbox>} */
    this.outboxes = new Map();
    /** @type {Map<string, number>} */
    this.heard = new Map();
    this.heardAt = 0;
    this.openedAt = 0;
    this.pingedAt = 0;
    this.failures = 0;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.retry = undefined;
    setInterval(() => this.tick(), TICK_MS);
    globalThis.addEventListener("online", () => this.connectNow());
    globalThis.addEventListener("pagehide", () => this.leave());
    globalThis.addEventListener("pageshow", () => this.connectNow());
    globalThis.addEventListener("storage", () => this.checkBrowser());
    this.connect();
  }

  // ── the page's side ──

  /** A channel object of this page takes part. @param {BroadcastChannel} channel */
  adopt(channel) {
    const name = channel.name;
    if (!this.names.has(name)) return;
    let objects = this.channels.get(name);
    if (objects === undefined) {
      objects = new Set();
      this.channels.set(name, objects);
      if (!this.outboxes.has(name)) this.outboxes.set(name, { next: 1, posts: [], openedAt: performance.now() });
      this.say(["join", name, 0]);
    }
    for (const one of objects) if (one.deref() === channel) return;
    objects.add(new WeakRef(channel));
  }

  /** It was closed, or nobody can reach it any more. @param {BroadcastChannel | undefined} channel @param {string} name */
  release(channel, name) {
    const objects = this.channels.get(name);
    if (objects === undefined) return;
    for (const one of objects) {
      const object = one.deref();
      if (object === undefined || object === channel) objects.delete(one);
    }
    if (objects.size) return;
    this.channels.delete(name);
    this.say(["leave", name]);
  }

  /** Take a post of the page's own. What cannot be taken is an error at once. @param {string} name @param {unknown} message */
  post(name, message) {
    const outbox = this.outboxes.get(name);
    if (outbox === undefined) return;
    let value;
    try {
      const writer = new Writer();
      writer.value(message);
      value = writer.done();
      if (value.length > MAX_VALUE_BYTES) throw new Unsendable("too_large", WORDS.too_large);
    } catch (error) {
      if (error instanceof Unsendable) complain(String(error.cause), error.message, name);
      else complain("invalid", "this value cannot leave this browser", name);
      return;
    }
    const waiting = outbox.posts.filter((post) => !post.takenAt);
    const bytes = waiting.reduce((sum, post) => sum + post.value.length, value.length);
    if (waiting.length >= MAX_WAITING_MESSAGES || bytes > MAX_WAITING_BYTES) {
      complain("busy", "more messages wait to be sent than may; send less, or wait for swarmbridge:taken", name);
      return;
    }
    outbox.posts.push({ number: outbox.next++, value, sent: false, takenAt: 0 });
    this.pump(name);
  }

  /** Send what the window has room for. @param {string} name */
  pump(name) {
    const outbox = this.outboxes.get(name);
    if (outbox === undefined || this.state !== "open") return;
    let count = 0, bytes = 0;
    for (const post of outbox.posts) {
      if (post.takenAt && post.sent) continue;
      count += 1;
      bytes += post.value.length;
      if (count > WINDOW_MESSAGES || (count > 1 && bytes > WINDOW_BYTES)) return;
      if (post.sent) continue;
      post.sent = true;
      this.say(["post", name, post.number, post.value]);
    }
  }

  // ── the worker's side ──

  /** @param {unknown[]} parts */
  say(parts) {
    if (this.state === "open") this.socket?.send(encodeFrame(parts));
  }

  /** @param {unknown[]} frame */
  hear(frame) {
    const [word, ...rest] = frame;
    switch (word) {
      case "welcome": {
        const [, page] = rest;
        if (!(page instanceof ArrayBuffer)) throw new TypeError("no page id");
        this.page = hex(new Uint8Array(page));
        this.become("open");
        break;
      }
      case "present":
        tell("present", { channel: rest[0], pages: rest[1] });
        break;
      case "taken":
        this.taken(String(rest[0]), Number(rest[1]), Number(rest[2]));
        break;
      case "refused":
        this.refused(String(rest[0]), Number(rest[1]), String(rest[2]));
        break;
      case "message":
        this.deliver(String(rest[0]), rest[1], Number(rest[2]), rest[3]);
        break;
      case "slowed":
        complain("rate_limited", "this page posts faster than the node takes it; nothing is lost, it takes longer");
        break;
      default: // joined, pong, and what a newer worker says
    }
  }

  /** @param {string} name @param {number} number @param {number} listeners */
  taken(name, number, listeners) {
    const outbox = this.outboxes.get(name);
    const post = outbox?.posts.find((one) => one.number === number);
    if (outbox === undefined || post === undefined || post.takenAt) return;
    post.takenAt = performance.now();
    tell("taken", { channel: name, number, listeners });
    if (listeners === 0) complain("no_listener", WORDS.no_listener, name);
    this.forgetTaken(outbox);
    this.pump(name);
  }

  /** @param {Outbox} outbox */
  forgetTaken(outbox) {
    const before = performance.now() - KEEP_TAKEN_MS;
    let count = 0, bytes = 0;
    // The newest first: what is kept for a worker that may die is no more than a window.
    outbox.posts = outbox.posts
      .reverse()
      .filter((post) => {
        if (!post.takenAt) return true;
        count += 1;
        bytes += post.value.length;
        return post.takenAt > before && count <= WINDOW_MESSAGES / 2 && bytes <= WINDOW_BYTES / 2;
      })
      .reverse();
  }

  /** @param {string} name @param {number} number @param {string} cause */
  refused(name, number, cause) {
    const outbox = this.outboxes.get(name);
    if (outbox !== undefined && number > 0) outbox.posts = outbox.posts.filter((post) => post.number !== number);
    complain(cause, WORDS[cause] ?? `the node refused it: ${cause}`, name);
    this.pump(name);
  }

  /** @param {string} name @param {unknown} sender @param {number} number @param {unknown} value */
  deliver(name, sender, number, value) {
    if (!(sender instanceof ArrayBuffer) || !(value instanceof ArrayBuffer)) throw new TypeError("no message");
    const from = hex(new Uint8Array(sender));
    const key = `${from} ${name}`;
    const last = this.heard.get(key);
    if (from === this.page || (last !== undefined && number <= last)) return;
    this.heard.delete(key);
    this.heard.set(key, number);
    if (this.heard.size > MAX_SENDERS) this.heard.delete(this.heard.keys().next().value ?? "");
    if (last !== undefined && number > last + 1) {
      complain("lost", `${number - last - 1} messages of one page were lost while this one was away for too long`, name);
    }
    const objects = this.channels.get(name) ?? new Set();
    for (const one of [...objects]) {
      const channel = one.deref();
      // A handler may have closed it meanwhile. Each object gets values of its own, as a structured clone would give.
      if (channel !== undefined && objects.has(one)) channel.dispatchEvent(messageEvent(value));
    }
  }

  // ── the socket's life ──

  connect() {
    this.become("connecting");
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    const late = setTimeout(() => this.lost(socket, 0), CONNECT_MS);
    socket.onopen = () => {
      clearTimeout(late);
      if (this.socket === socket) this.opened();
    };
    socket.onmessage = (event) => {
      if (this.socket !== socket) return;
      this.heardAt = performance.now();
      if (typeof event.data === "string") complain("refused", event.data);
      else this.hear(decodeFrame(event.data));
    };
    socket.onclose = (event) => {
      clearTimeout(late);
      this.lost(socket, event.code);
    };
  }

  opened() {
    const now = performance.now();
    const joins = [...this.channels.keys()].map((name) => {
      const opened = now - (this.outboxes.get(name)?.openedAt ?? now);
      const away = this.heardAt ? now - this.heardAt + OVERLAP_MS : 0;
      return ["join", name, Math.round(Math.min(away, opened, 3600000))];
    });
    this.state = "open";
    this.openedAt = this.heardAt = now;
    this.pingedAt = 0;
    const writer = new Writer();
    writer.u8(0x95);
    writer.text("hello");
    writer.number(VERSION);
    writer.bin(this.secret);
    writer.bin(fromHex(this.browser));
    writer.value(joins);
    this.socket?.send(writer.done());
    for (const [name, outbox] of this.outboxes) {
      this.forgetTaken(outbox);
      for (const post of outbox.posts) post.sent = false;
      this.pump(name);
    }
  }

  /** @param {WebSocket} socket @param {number} code */
  lost(socket, code) {
    if (this.socket !== socket) return;
    this.socket = null;
    socket.onmessage = null;
    socket.close();
    if (code === CLOSE_TOO_LARGE) complain("too_large", WORDS.too_large);
    if (this.state === "open" && performance.now() - this.openedAt > PROVED_MS) this.failures = 0;
    const longest = Math.min(RETRY_CAP_MS, RETRY_FIRST_MS * 2 ** this.failures++);
    const delay = code === CLOSE_REFUSED ? RETRY_REFUSED_MS : longest * (0.5 + Math.random() / 2);
    this.become("waiting");
    this.retry = setTimeout(() => this.connect(), delay);
  }

  /** The page is closed, or kept for "back" and frozen: others see at once that it is gone. */
  leave() {
    if (this.socket !== null) this.lost(this.socket, 0);
  }

  connectNow() {
    if (this.state !== "waiting") return;
    clearTimeout(this.retry);
    this.connect();
  }

  /** Another tab chose what this browser is called at the same moment as we did, or storage was cleared. */
  checkBrowser() {
    const now = browserId();
    if (now === this.browser) return;
    this.browser = now;
    this.leave();
  }

  tick() {
    this.checkBrowser();
    for (const name of [...this.channels.keys()]) this.release(undefined, name);
    if (this.state !== "open" || this.socket === null) return;
    const now = performance.now();
    if (this.pingedAt > this.heardAt) {
      if (now - this.pingedAt > PONG_WITHIN_MS) this.lost(this.socket, 0);
    } else if (now - this.heardAt > PING_AFTER_MS) {
      this.pingedAt = now;
      this.say(["ping"]);
    }
  }

  /** @param {string} state */
  become(state) {
    this.state = state;
    tell("state", { state, page: this.page });
  }
}

/** @param {ArrayBuffer} value */
function messageEvent(value) {
  try {
    const reader = new Reader(new Uint8Array(value));
    const data = reader.value();
    if (reader.at !== value.byteLength) throw new TypeError("more than one value");
    const event = new MessageEvent("message", { data, origin: location.origin });
    // The constructor takes undefined for "not given", which is null.
    if (data === undefined) Object.defineProperty(event, "data", { value: undefined });
    return event;
  } catch {
    return new MessageEvent("messageerror", { origin: location.origin });
  }
}

// ── the page's BroadcastChannel ────────────────────────────────────────────────────────────────────────────────────

/** @param {Bridge} bridge */
function watchChannels(bridge) {
  const Native = globalThis.BroadcastChannel;
  const native = { postMessage: Native.prototype.postMessage, close: Native.prototype.close };
  /** @type {WeakSet<BroadcastChannel>} */
  const closed = new WeakSet();

  /** @this {BroadcastChannel} @param {unknown} message */
  Native.prototype.postMessage = function postMessage(message) {
    // First natively, with whatever was given: what the browser itself refuses is refused as ever, and goes nowhere.
    native.postMessage.apply(this, /** @type {[unknown]} */ (/** @type {unknown} */ (arguments)));
    bridge.adopt(this);
    bridge.post(this.name, message);
  };
  Native.prototype.close = function close() {
    native.close.call(this);
    if (closed.has(this)) return;
    closed.add(this);
    bridge.release(this, this.name);
  };
  // A proxy, so that it is the same class to everybody: its name, its prototype, `instanceof`, and its errors.
  globalThis.BroadcastChannel = new Proxy(Native, {
    construct(target, args, newTarget) {
      const channel = Reflect.construct(target, args, newTarget);
      bridge.adopt(channel);
      return channel;
    },
  });
}

/** @returns {Bridge | null} */
function start() {
  const from = new URL(import.meta.url);
  const names = from.searchParams.getAll("channel");
  const url = new URL("/pages", from);
  url.protocol = from.protocol === "https:" ? "wss:" : "ws:";
  const token = from.searchParams.get("token");
  if (token !== null) url.searchParams.set("token", token);
  try {
    const bridge = new Bridge(url, names.length ? names : ["swarm-space-webtorrent"]);
    watchChannels(bridge);
    return bridge;
  } catch {
    // Without storage tabs of one browser cannot be distinguished from others, and everything would be heard twice.
    complain("forbidden", "this page may not store anything, so its channels stay in this browser");
    return null;
  }
}

const bridge = start();

/** How it is now, for a page that came too late for the events. */
export function status() {
  return { state: bridge === null ? "off" : bridge.state, page: bridge?.page ?? "" };
}

/**
 * What the page sends on its PeerJS connection to the node, so that the node can go on over this channel when that
 * connection fails: `connection.send(alsoHere())`, or its JSON text where the page speaks that. Every few seconds: a
 * connection that was opened again knows nothing of what was said before. Null until this script has a connection. On the channel the page's envelopes name its PeerJS id in `from`, as they always do.
 */
export function alsoHere() {
  const guest = bridge?.page ? `page-${bridge.page}` : "";
  return guest ? { type: "swarmbridge-also", payload: { guest }, guest } : null;
}
