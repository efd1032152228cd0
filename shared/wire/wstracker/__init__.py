"""WebSocket trackers: messages and their JSON (messages, codec, hint), both ends (client, tracker)."""
