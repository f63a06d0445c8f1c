"use strict";

// The token comes with the address, behind the #, which a browser tells no server. From there it goes to where only pages of
// this origin can read it.
const token = (() => {
	const given = location.hash.slice(1);
	if (given) {
		localStorage.setItem("token", given);
		history.replaceState(null, "", location.pathname);
	}
	return localStorage.getItem("token") ?? "";
})();

const $ = (selector, within = document) => within.querySelector(selector);
const cards = new Map(); // what is shown of each torrent, by info hash
let opened = ""; // the info hash of the torrent whose detail is shown
let stream = null; // ends the present event stream

// ---- words

const units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

function size(n) {
	if (n < 1000) return `${n} B`;
	let unit = 0;
	for (n /= 1024; n >= 999.5; n /= 1024) unit++;
	return `${n.toFixed(n >= 99.95 ? 0 : n >= 9.995 ? 1 : 2)} ${units[unit]}`;
}

const rate = n => size(n) + "/s";
const count = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;
const percent = (part, all) => all > 0 ? Math.floor(100 * part / all) : 0;

function duration(s) {
	if (s < 60) return `${s} s`;
	if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
	if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
	return count(Math.floor(s / 86400), "day");
}

// ---- requests

async function request(method, path, body, type) {
	const headers = { Authorization: `Bearer ${token}` };
	if (body !== undefined) headers["Content-Type"] = type ?? "application/json";
	const response = await fetch(path, { method, headers, body: body !== undefined && !type ? JSON.stringify(body) : body });
	if (!response.ok) throw new Error((await response.text()).trim() || response.statusText);
	return response;
}

// attempt does what the user asked for, and shows why it did not work.
async function attempt(what) {
	notice("");
	try {
		return await what();
	} catch (err) {
		notice(err.message);
	}
}

function notice(text) {
	const box = $("#notice");
	set(box, text);
	box.hidden = !text;
}

// ---- what the server tells

// listen reads the events, and comes back when they end. EventSource cannot send the token.
async function listen() {
	for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
		stream = new AbortController();
		const { signal } = stream;
		let restarted = false;
		try {
			const response = await fetch(`/api/events?torrent=${opened}`, { headers: { Authorization: `Bearer ${token}` }, signal });
			if (response.status === 401) return notice(await response.text());
			if (!response.ok) throw new Error(response.statusText);
			document.body.classList.remove("offline");
			wait = 500;
			await events(response.body.pipeThrough(new TextDecoderStream()).getReader());
		} catch {
			restarted = signal.aborted;
		}
		if (restarted) continue;
		document.body.classList.add("offline");
		set($("#totals"), "not connected: is webui running?");
		await new Promise(done => setTimeout(done, wait));
	}
}

async function events(reader) {
	for (let text = ""; ;) {
		const { value, done } = await reader.read();
		if (done) return;
		text += value;
		for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
			const event = Object.fromEntries(text.slice(0, end).split("\n").map(line => {
				const at = line.indexOf(": ");
				return [line.slice(0, at), line.slice(at + 2)];
			}));
			if (event.event === "list") showList(JSON.parse(event.data));
			if (event.event === "detail") showDetail(JSON.parse(event.data));
		}
	}
}

// ---- what is shown

// set changes a text only if it is another one, so that selections stay.
function set(element, text) {
	if (element.textContent !== text) element.textContent = text;
}

// keyed has one child for each value, in order, and keeps those that there are.
function keyed(parent, values, key, make, update) {
	const old = new Map([...parent.children].map(child => [child.dataset.key, child]));
	let at = parent.firstElementChild;
	for (const value of values) {
		const k = String(key(value));
		let child = old.get(k);
		old.delete(k);
		if (!child) {
			child = make(value);
			child.dataset.key = k;
		}
		if (child === at) at = at.nextElementSibling;
		else parent.insertBefore(child, at);
		update(child, value);
	}
	for (const child of old.values()) child.remove();
}

function showList(list) {
	keyed($("#list"), list, t => t.hash, makeCard, updateCard);
	for (const hash of cards.keys()) {
		if (!list.some(t => t.hash === hash)) cards.delete(hash);
	}
	$("#empty").hidden = list.length > 0;
	const sum = field => list.reduce((n, t) => n + t[field], 0);
	set($("#totals"), list.length ? `↓ ${rate(sum("down"))}   ↑ ${rate(sum("up"))}` : "");
	const moving = list.filter(t => t.state === "downloading" && t.wanted > 0);
	document.title = moving.length ? `${percent(moving.reduce((n, t) => n + t.verified, 0), moving.reduce((n, t) => n + t.wanted, 0))} % · shoal` : "shoal";
}

function makeCard(t) {
	const card = $("#torrent").content.firstElementChild.cloneNode(true);
	cards.set(t.hash, card);
	const path = `/api/torrents/${t.hash}`;
	$(".name", card).onclick = () => open(opened === t.hash ? "" : t.hash);
	$(".pause", card).onclick = () => attempt(() => request("POST", `${path}/${card.dataset.again ? "resume" : "pause"}`));
	const confirm = $(".confirm", card);
	$(".remove", card).onclick = () => { confirm.hidden = !confirm.hidden; };
	$(".cancel", card).onclick = () => { confirm.hidden = true; };
	const remove = query => attempt(() => {
		stop(card);
		return request("DELETE", path + query);
	});
	$(".keep", card).onclick = () => remove("");
	$(".delete", card).onclick = () => remove("?files=1");
	$(".stop", card).onclick = () => stop(card);
	$(".copy", card).onclick = () => attempt(() => navigator.clipboard.writeText(card.dataset.magnet));
	return card;
}

function updateCard(card, t) {
	card.className = `torrent ${t.state}`;
	set($(".title", card), t.name);
	set($(".state", card), t.state);
	card.dataset.again = t.state === "paused" || t.state === "failed" ? "yes" : "";
	set($(".pause", card), t.state === "failed" ? "Try again" : card.dataset.again ? "Resume" : "Pause");
	const share = t.state === "checking" ? percent(t.checked, t.length) : percent(t.verified, t.wanted);
	if (t.state !== "resolving") $(".bar > *", card).style.width = `${t.complete ? 100 : share}%`;
	const facts = [];
	if (t.state === "resolving") facts.push("asking peers what is in it");
	else if (t.state === "checking") facts.push(`${share} % checked`);
	else if (t.complete) facts.push(`${size(t.wanted)} complete`);
	else if (t.wanted) facts.push(`${share} %`, `${size(t.verified)} of ${size(t.wanted)}`);
	if (t.state === "downloading") {
		facts.push(`↓ ${rate(t.down)}`);
		if (t.eta >= 0 && t.down) facts.push(`${duration(t.eta)} left`);
	}
	if (t.up || t.state === "seeding") facts.push(`↑ ${rate(t.up)}`);
	if (t.sent) facts.push(`${size(t.sent)} shared`);
	if (t.state === "downloading" || t.state === "seeding") facts.push(count(t.peers, "peer"));
	keyed($(".facts", card), facts.map((text, i) => ({ text, i })), f => f.i, () => document.createElement("span"), (span, f) => set(span, f.text));
	const error = $(".error", card);
	set(error, t.error ?? "");
	error.hidden = !t.error;
}

function open(hash) {
	opened = hash;
	for (const [h, card] of cards) {
		$(".detail", card).hidden = h !== hash;
		$(".name", card).setAttribute("aria-expanded", h === hash);
		if (h !== hash) stop(card);
	}
	stream?.abort();
}

function showDetail(d) {
	const card = cards.get(d.hash);
	if (!card || d.hash !== opened) return;
	card.dataset.magnet = d.magnet;
	set($(".pieces-note", card), d.pieces ? `${d.pieces} of ${size(d.pieceLength)}${d.wasted ? `, ${size(d.wasted)} came in vain` : ""}` : "unknown yet");
	drawPieces($(".pieces", card), d);
	keyed($(".files", card), d.files, f => f.index, f => makeFile(card, d, f), updateFile);
	$(".peers", card).hidden = d.peers.length === 0;
	$(".peers-none", card).hidden = d.peers.length > 0;
	keyed($(".peers tbody", card), d.peers, p => p.addr, makePeer, (row, p) => updatePeer(row, p, d));
	keyed($(".webseeds", card), d.webSeeds, w => w.url, () => document.createElement("li"), (row, w) => {
		set(row, `${w.url}: ${w.error || `${w.state}, ${size(w.received)} received${w.down ? `, ${rate(w.down)}` : ""}`}`);
		row.className = w.error ? "bad" : "";
	});
	keyed($(".trackers", card), d.trackers, t => t.url, () => document.createElement("li"), (row, t) => {
		set(row, t.error || `${t.url}: answered or about to be asked`);
		row.className = t.error ? "bad" : "";
	});
}

// drawPieces fills each pixel as far as the pieces there are verified.
function drawPieces(canvas, d) {
	const have = Uint8Array.from(atob(d.have), c => c.charCodeAt(0));
	const width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
	const height = canvas.height = Math.round(14 * devicePixelRatio);
	const g = canvas.getContext("2d");
	g.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
	let total = 0;
	for (let x = 0; x < width; x++) {
		const from = Math.floor(x * d.pieces / width), to = Math.max(from + 1, Math.floor((x + 1) * d.pieces / width));
		let n = 0;
		for (let i = from; i < to && i < d.pieces; i++) n += have[i >> 3] >> (7 - i % 8) & 1;
		g.globalAlpha = n / (to - from);
		if (n) g.fillRect(x, 0, 1, height);
	}
	for (const byte of have) for (let b = byte; b; b &= b - 1) total++;
	canvas.setAttribute("aria-label", `${total} of ${d.pieces} pieces verified`);
}

function makeFile(card, d, f) {
	const row = $("#row").content.firstElementChild.cloneNode(true);
	const box = $("input", row);
	box.onchange = () => attempt(() => request("PUT", `/api/torrents/${d.hash}/files/${f.index}`, { wanted: box.checked }));
	set($(".path", row), f.path);
	$("label", row).title = f.path;
	set($(".size", row), size(f.length));
	const control = document.createElement(f.kind ? "button" : "a");
	if (f.kind) {
		control.type = "button";
		control.className = "play";
		control.textContent = "Play";
		control.onclick = () => play(card, f);
	} else {
		control.href = f.url;
		control.download = "";
		control.textContent = "Save";
	}
	$(".open", row).append(control);
	return row;
}

function updateFile(row, f) {
	const box = $("input", row);
	if (document.activeElement !== box) box.checked = f.wanted;
	row.classList.toggle("done", f.verified === f.length);
	$(".bar > *", row).style.width = `${f.length ? percent(f.verified, f.length) : 100}%`;
	$(".bar", row).title = `${size(f.verified)} of ${size(f.length)}`;
}

function makePeer() {
	const row = document.createElement("tr");
	for (const name of ["", "", "wide", "wide", "n", "n", "n", "n wide"]) row.insertCell().className = name;
	return row;
}

function updatePeer(row, p, d) {
	const by = p.transport + (p.encrypted ? ", encrypted" : "");
	[p.addr, p.client, by, p.source, `${percent(p.pieces, d.pieces)} %`, p.down ? rate(p.down) : "–", p.up ? rate(p.up) : "–", size(p.received)]
		.forEach((text, i) => set(row.cells[i], text));
}

function play(card, f) {
	stop(card);
	const player = document.createElement(f.kind.startsWith("audio/") ? "audio" : "video");
	player.controls = player.autoplay = true;
	player.onerror = () => set($(".playing span", card), `${f.path}: this browser cannot play it, but a player beside it may, at ${location.origin}${f.url}`);
	player.src = f.url;
	$(".screen", card).replaceChildren(player);
	set($(".playing span", card), f.path);
	$(".player", card).hidden = false;
}

function stop(card) {
	const player = $(".screen", card).firstElementChild;
	if (player) {
		player.onerror = null;
		player.removeAttribute("src");
		player.load(); // ends its request
		player.remove();
	}
	$(".player", card).hidden = true;
}

// ---- what the user gives

async function addFiles(files) {
	for (const file of files) {
		await attempt(() => request("POST", "/api/torrents", file, "application/x-bittorrent"));
	}
}

$("#add").onsubmit = event => {
	event.preventDefault();
	const input = $("#magnet");
	if (!input.value.trim()) return;
	attempt(async () => {
		await request("POST", "/api/torrents", { magnet: input.value });
		input.value = "";
	});
};
$("#file").onchange = async event => {
	await addFiles([...event.target.files]);
	event.target.value = "";
};
document.addEventListener("dragover", event => {
	event.preventDefault();
	document.body.classList.add("drop");
});
document.addEventListener("dragleave", event => {
	if (!event.relatedTarget) document.body.classList.remove("drop");
});
document.addEventListener("drop", event => {
	event.preventDefault();
	document.body.classList.remove("drop");
	addFiles([...event.dataTransfer.files]);
});

if (token) listen();
else notice("The token is missing: open the address that webui has printed.");
