// What a test's page keeps of its channel and of what the script says. A classic script: it is there before both.
"use strict";
const heard = [];
const told = { state: [], present: [], taken: [], error: [] };
for (const name of Object.keys(told)) {
  addEventListener(`swarmbridge:${name}`, (event) => told[name].push(event.detail));
}
let channel = null;

function openChannel(name) {
  channel = new BroadcastChannel(name);
  channel.onmessage = (event) => heard.push(event.data);
}

const last = (list) => list[list.length - 1];
const isOpen = () => last(told.state)?.state === "open";
const present = () => last(told.present)?.pages ?? 0;
