// What a test's page keeps of its channel and of what the script says. A classic script: it is there before both.
"use strict";
const heard = [];
const noted = { state: [], present: [], taken: [], error: [] };
for (const name of Object.keys(noted)) {
  addEventListener(`swarmbridge:${name}`, (event) => noted[name].push(event.detail));
}
let channel = null;

function openChannel(name) {
  channel = new BroadcastChannel(name);
  channel.onmessage = (event) => heard.push(event.data);
}

const last = (list) => list[list.length - 1];
const isOpen = () => last(noted.state)?.state === "open";
const present = () => last(noted.present)?.pages ?? 0;
