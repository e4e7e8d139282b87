// A stand-in for the control plane, for working on the pages without one.
//
//   npm run build && npm run fake        then open http://127.0.0.1:5180
//   npm run fake, and STREAMSPACE_API=http://127.0.0.1:5180 npm run dev
//
// Sign in as admin, operator or user with any password of ten characters; shorter ones
// are wrong, the user "disabled" is, and "hasty" has tried too often. State is in memory.
// Templates named "broken" fail to start. Type `close 4410 text` into the desktop's
// clipboard panel to see a stream end with that code.
import { createHash, randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const DIST = join(import.meta.dirname, "..", "dist");
const PORT = Number(process.env.PORT ?? 5180);
const CSP =
  "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' *.localhost:*";
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2" };
const now = () => new Date().toISOString();
const hex = (bytes) => randomBytes(bytes).toString("hex");
const before = (seconds) => new Date(Date.now() - seconds * 1000).toISOString();

const user = (username, role, displayName = null, rest = {}) => ({
  id: `usr-${createHash("md5").update(username).digest("hex")}`, username, displayName, email: `${username}@example.org`, role,
  disabled: false, createdAt: before(9e6), updatedAt: now(), lastLoginAt: before(5000), version: 1, ...rest,
});
const users = [
  user("admin", "admin", "Ada Admin"), user("operator", "operator"), user("user", "user", "Uma User"),
  user("disabled", "user", null, { disabled: true, lastLoginAt: null }), user("grace.hopper", "user", "Grace Hopper"),
];
const template = (name, displayName, categories, description, icon, rest = {}) => ({
  id: `starter_${name}`, catalogId: "starter", name, displayName, description, categories, tags: [], icon, protocol: "vnc",
  runtimes: ["process", "null"], defaultResources: { cpu: "1000m", memory: "2Gi" }, capabilities: [], digest: hex(32), path: `${name}.yaml`,
  commit: hex(20), unusable: null, updatedAt: now(), ...rest,
});
const templates = [
  template("desktop", "Linux desktop", ["desktops"], "A plain desktop with a panel, a file manager, a terminal and a browser.", "tabler:device-desktop"),
  template("terminal", "Terminal", ["development"], "A shell in a window: for a quick look at something.", "tabler:terminal-2"),
  template("firefox", "Firefox", ["browsers"], "The web browser that puts people first, isolated from your own machine.", "tabler:brand-firefox"),
  template("chromium", "Chromium", ["browsers"], "The open-source web browser that others are built on.", null),
  template("vscode", "VS Code", ["development"], "Code editing, redefined: with extensions, a debugger and git.", "tabler:brand-vscode", { protocol: "http" }),
  template("jupyter", "JupyterLab", ["development", "science"], "Notebooks, code and data in one place.", null, { protocol: "http" }),
  template("blender", "Blender", ["design-graphics"], "Modelling, sculpting, animation and rendering in three dimensions.", null),
  template("gimp", "GIMP", ["design-graphics"], "Edit photographs and paint.", null),
  template("libreoffice", "LibreOffice", ["office"], "Documents, spreadsheets and presentations.", null),
  template("kdenlive", "Kdenlive", ["audio-video"], "Cut videos.", "🎬"),
  template("broken", "Broken on purpose", ["development"], "Always fails to start.", null),
  template("gpu-lab", "GPU Lab", ["science"], "Machine learning with a graphics card.", null, { unusable: "Its connection names a port that the image does not listen on." }),
];
const catalogs = [
  { id: "starter", name: "StreamSpace starter", url: "builtin:starter", branch: null, builtIn: true, state: "synced", commit: hex(20), templateCount: 12, counts: { accepted: 11, corrected: 1, skipped: 0, refused: 0, removed: 0 }, error: null, lastSyncAt: before(300), createdAt: before(9e5), version: 1 },
  { id: "community", name: "Community", url: "https://git.example.org/streamspace/templates.git", branch: "main", builtIn: false, state: "failed", commit: null, templateCount: 0, counts: { accepted: 0, corrected: 0, skipped: 0, refused: 0, removed: 0 }, error: "git.example.org does not answer: check the address and the server's network.", lastSyncAt: null, createdAt: before(9000), version: 1 },
];
const files = [
  { path: "desktop.yaml", outcome: "accepted", templateId: "starter_desktop", reasons: [] },
  { path: "firefox.yaml", outcome: "corrected", templateId: "starter_firefox", reasons: ["port 8080 became 3000, which the image listens on", "kasmvnc became vnc"] },
  { path: "README.md", outcome: "skipped", templateId: null, reasons: ["not YAML"] },
  { path: "media/broken.yaml", outcome: "refused", templateId: null, reasons: ["line 4: mapping values are not allowed here"] },
];
const cluster = (id, name, presence, rest = {}) => ({
  id, name, presence, runtime: "process", version: "0.1.0", capacity: { maxSessions: 20, cpu: 8, memory: 34359738368 }, runningSessions: 3,
  reservedSessions: 4, waitingCommands: 0, oldestWaitingCommandAt: null, agents: 1, labels: { zone: "eu" }, lastSeenAt: before(2), trouble: null,
  instances: [{ instance: `${id}-1`, version: "0.1.0", contractVersion: 1, behind: false, draining: false, busyCommands: 0, lastSeenAt: before(2), trouble: null }],
  drainedAt: null, drainedBy: null, createdAt: before(9e5), versionNumber: 1, ...rest,
});
const clusters = [
  cluster("local", "This machine", "online"),
  cluster("berlin-1", "Berlin", "offline", { runtime: "kubernetes", agents: 0, lastSeenAt: before(900), waitingCommands: 2, oldestWaitingCommandAt: before(600), oldestWaitingSeconds: 600 }),
  cluster("tokyo", "Tokyo", "offline", { runtime: "docker", agents: 0, revokedAt: before(4000), lastSeenAt: before(4000), runningSessions: 0, reservedSessions: 3, waitingCommands: 3, oldestWaitingCommandAt: before(3000), oldestWaitingSeconds: 3000 }),
  cluster("lisbon", "Lisbon", "draining", { drainedAt: before(1800), drainedBy: "admin" }),
  cluster("paris", "Paris", "degraded", { reservedSessions: 19, trouble: "The disk for homes is 92% full." }),
];

let sequence = 100;
const followers = new Set();
const sessions = new Map();
const commands = new Map();
const histories = new Map();
const letters = [
  { id: "cmd-0a1b2c3d.1", clusterId: "paris", sessionId: "ada-desktop-00c0ffee", commandId: "cmd-0a1b2c3d", generation: 1, attempt: 1, action: "start_session", cause: "terminated", reason: "The disk for homes is full.", originStream: "COMMANDS", originSequence: 41, deliveries: 1, consumer: "agent-paris", headers: {}, state: "open", diedAt: before(1200), settledAt: null, settledBy: null, retriedAs: null },
  { id: "COMMANDS-17", clusterId: "berlin-1", sessionId: "nobody-1", commandId: null, generation: null, attempt: null, action: null, cause: "max-deliveries", reason: "It was delivered 8 times and never acknowledged.", originStream: "COMMANDS", originSequence: 17, deliveries: 8, consumer: "agent-berlin-1", headers: {}, state: "open", diedAt: before(7200), settledAt: null, settledBy: null, retriedAs: null },
];
const tickets = new Map();
const tokens = new Map();

function tell(name, session, data) {
  sequence += 1;
  for (const follower of followers) {
    if (follower.only ? follower.only === session.id : name !== "phase") follower.response.write(`id: ${sequence}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
  }
}
function change(session, changes) {
  const from = session.state;
  Object.assign(session, changes, { version: session.version + 1, updatedAt: now() });
  if (session.state !== from) remember(session, from);
  tell("state", session, { id: hex(8), at: now(), sessionId: session.id, ownerId: session.owner.userId, fromState: from, toState: session.state, session });
}
function remember(session, from) {
  const entry = { eventId: hex(8), type: from ? "session.state-changed.v1" : "session.created.v1", sessionId: session.id, at: now(), actor: from ? { id: `agent:${session.clusterId}/one` } : { id: session.owner.userId, name: session.owner.username }, cause: null, traceId: hex(16), fromState: from, toState: session.state, message: session.message };
  histories.set(session.id, [...(histories.get(session.id) ?? []), entry]);
}
function command(session, action, who) {
  const made = { id: `cmd-${hex(4)}`, sessionId: session.id, generation: session.generation, action, state: "completed", attempt: 1, actor: { id: who.id, name: who.username, address: null }, error: null, createdAt: now(), acknowledgedAt: now(), completedAt: now(), deadline: now() };
  commands.set(session.id, [made, ...(commands.get(session.id) ?? [])]);
  return made.id;
}
function newSession(from, owner, rest = {}) {
  const session = {
    id: `${owner.username.replace(/\W/g, "-")}-${from.name}-${hex(4)}`, owner: { userId: owner.id, username: owner.username }, templateId: from.id,
    templateName: from.name, templateDisplayName: from.displayName, templateDigest: from.digest, clusterId: "local", state: "pending", desired: "running",
    reason: null, message: null, generation: 1, protocol: from.protocol, resources: from.defaultResources, persistentHome: true, phases: [],
    idleTimeout: 3600, maxDuration: null, createdAt: now(), updatedAt: now(), startedAt: null, terminatedAt: null, deadline: null, lastActivityAt: null,
    version: 1, ...rest,
  };
  sessions.set(session.id, session);
  remember(session, null);
  return session;
}
function begin(session, state) {
  change(session, { state, desired: "running", reason: null, message: null, phases: [], generation: session.generation + (state === "waking" ? 1 : 0) });
  const steps = [["scheduled", 40], ["created", 420], ["started", 900], ["ready", 1500]];
  for (const [phase, elapsedMs] of steps) {
    setTimeout(() => {
      if (session.state !== state) return;
      if (session.templateName === "broken" && phase === "started") {
        change(session, { state: "failed", reason: "missing-program", message: "The program `nosuch` is not installed on the cluster.", terminatedAt: now() });
        return;
      }
      const timing = { phase, elapsedMs, message: null };
      session.phases = [...session.phases, timing];
      tell("phase", session, { sessionId: session.id, generation: session.generation, timing });
      if (phase === "ready") change(session, { state: "running", startedAt: now(), lastActivityAt: now() });
    }, elapsedMs);
  }
}
const [admin] = users;
newSession(templates[0], admin, { state: "running", startedAt: before(4000), createdAt: before(4100), lastActivityAt: before(60), phases: [{ phase: "scheduled", elapsedMs: 12, message: null }, { phase: "ready", elapsedMs: 812, message: null }] });
newSession(templates[2], admin, { state: "hibernated", desired: "hibernated", reason: "idle", createdAt: before(90000), lastActivityAt: before(30000) });
newSession(templates[4], admin, { state: "unknown", clusterId: "berlin-1", reason: "cluster-offline", createdAt: before(7000) });
newSession(templates[6], admin, { state: "failed", reason: "no-space", message: "The cluster has 1.2 GiB of memory left; the session asks for 2 GiB.", createdAt: before(8000), terminatedAt: before(7900) });
newSession(templates[8], users[2], { state: "running", startedAt: before(300), createdAt: before(310) });

const problem = (status, code, title, detail, more = {}) => ({ status, body: { type: `https://streamspace.dev/problems/${code}`, status, code, title, detail, requestId: hex(8), ...more } });
const ok = (body, status = 200, headers = {}) => ({ status, body, headers });
const notFound = () => problem(404, "not-found", "Not found", "There is no such thing, or it is not yours.");
const accepted = (session, commandId) => ok({ session, commandId }, 202);
function signIn(who, headers = {}) {
  const accessToken = hex(16);
  tokens.set(accessToken, who);
  return ok({ accessToken, tokenType: "Bearer", expiresIn: 900, refreshToken: null, refreshExpiresIn: 86400, user: who }, 200, headers);
}

function login({ username, password }) {
  const who = users.find((known) => known.username === username);
  if (username === "hasty") return problem(429, "too-many-requests", "Too many requests", "Too many attempts to sign in.", { retryAfter: 42 });
  if (!who || password.length < 10) return problem(401, "invalid-credentials", "Wrong user name or password", "The user name or the password is wrong.");
  if (who.disabled) return problem(403, "account-disabled", "This account is disabled", "Ask an administrator to enable it.");
  return signIn(who, { "Set-Cookie": `streamspace_refresh=${who.username}; HttpOnly; SameSite=Strict; Path=/api/v1/auth; Max-Age=86400` });
}

function settle(letter, how, who) {
  if (!letter) return notFound();
  if (how === "retry" && !sessions.has(letter.sessionId)) return problem(409, "conflict", "Conflict", `There is no session ${letter.sessionId} whose command this could be. Discard it.`);
  Object.assign(letter, { state: how === "retry" ? "retried" : "discarded", settledAt: now(), settledBy: { id: who.id, name: who.username } });
  return how === "retry" ? ok({ letter, session: sessions.get(letter.sessionId), commandId: `cmd-${hex(4)}` }, 202) : ok(letter);
}

function ofSession(method, id, action, who, body) {
  const session = sessions.get(id);
  if (!session || (session.owner.userId !== who.id && who.role === "user")) return notFound();
  if (method === "DELETE") {
    const id = command(session, "stop", who);
    change(session, { state: "terminating", desired: "terminated" });
    setTimeout(() => change(session, { state: "terminated", reason: "user", terminatedAt: now() }), 900);
    return accepted(session, id);
  }
  switch (action) {
    case undefined: return ok(session);
    case "commands": return ok({ items: commands.get(id) ?? [] });
    case "history": return ok({ items: histories.get(id) ?? [], nextCursor: null });
    case "hibernate":
      change(session, { state: "hibernating", desired: "hibernated" });
      setTimeout(() => change(session, { state: "hibernated", reason: "user" }), 900);
      return accepted(session, command(session, "hibernate", who));
    case "wake":
      begin(session, "waking");
      return accepted(session, command(session, "wake", who));
    case "connect": {
      if (session.state !== "running") return problem(409, "wrong-state", "Not possible in this state", `The session is ${session.state}; wake it first.`);
      const ticket = hex(16);
      tickets.set(ticket, session);
      const http = session.protocol === "http";
      return ok({ url: http ? `http://${id}.localhost:${PORT}/_streamspace/enter` : `ws://127.0.0.1:${PORT}/streams/${id}`, protocols: http ? [] : ["binary", `streamspace.ticket.${ticket}`], ticket, role: body.role ?? "control", protocol: session.protocol, expiresAt: now() });
    }
    default: return notFound();
  }
}

function listTemplates(query) {
  const search = (query.get("search") ?? "").toLowerCase();
  const category = query.get("category");
  const items = templates.filter((item) => (!category || item.categories.includes(category)) && `${item.displayName} ${item.description}`.toLowerCase().includes(search));
  const categories = {};
  for (const item of templates) for (const name of item.categories) categories[name] = (categories[name] ?? 0) + 1;
  return ok({ items, nextCursor: null, total: items.length, categories });
}

const replies = new Map();
function createSession(who, body, key) {
  if (key && replies.has(key)) return replies.get(key);
  const from = templates.find(({ id, name }) => id === body.template || name === body.template);
  if (!from) return notFound();
  if (from.name === "gimp") return problem(409, "no-cluster", "No cluster can run this", "No live cluster offers a runtime for this template (docker or kubernetes).");
  const session = newSession(from, who, { resources: { ...from.defaultResources, ...body.resources } });
  tell("created", session, { sessionId: session.id, ownerId: who.id, session, commandId: "cmd-00000000" });
  setTimeout(() => begin(session, "starting"), 150);
  const reply = accepted(session, command(session, "start", who));
  if (key) replies.set(key, reply);
  return reply;
}

function patchUser(id, body, ifMatch) {
  const found = users.find((known) => known.id === id);
  if (!found) return notFound();
  if (ifMatch && ifMatch !== `"${found.version}"`) return problem(412, "precondition-failed", "It was changed meanwhile", "Reload and try again.");
  const changes = { ...body };
  delete changes.password;
  Object.assign(found, changes, { version: found.version + 1 });
  return ok(found);
}

function answer(method, path, query, body, headers) {
  const [first, second, third] = path;
  if (first === "auth") {
    if (second === "login") return login(body);
    const name = /streamspace_refresh=([^;]+)/.exec(headers.cookie ?? "")?.[1];
    const who = users.find((known) => known.username === name);
    if (second === "logout") return ok(undefined, 204, { "Set-Cookie": "streamspace_refresh=; Max-Age=0; Path=/api/v1/auth" });
    return who ? signIn(who) : problem(401, "unauthenticated", "Sign in first", "There is no refresh token; sign in.");
  }
  const who = tokens.get((headers.authorization ?? "").replace("Bearer ", ""));
  if (!who) return problem(401, "unauthenticated", "Sign in first", "The access token is not valid.");
  const name = `${method} ${first}`;
  if (first === "users" && second === "me") return third ? ok(who) : ok(who);
  if (name === "GET users") {
    const search = (query.get("search") ?? "").toLowerCase();
    return ok({ items: users.filter((known) => `${known.username} ${known.displayName}`.toLowerCase().includes(search)), nextCursor: null });
  }
  if (name === "POST users") {
    if (users.some(({ username }) => username === body.username)) return problem(409, "already-exists", "It exists already", `There is a user called ${body.username} already.`);
    users.push(user(body.username, body.role, body.displayName, { lastLoginAt: null }));
    return ok(users.at(-1), 201);
  }
  if (name === "PATCH users") return patchUser(second, body, headers["if-match"]);
  if (name === "GET templates") return second ? ok(templates.find(({ id }) => id === second)) : listTemplates(query);
  if (name === "GET runtimes") return ok({ items: ["process"], live: ["process"] });
  if (name === "GET clusters") return ok({ items: clusters });
  if (name === "GET dead-letters") return ok({ items: letters.filter(({ state }) => query.getAll("state").includes(state)), nextCursor: null });
  if (name === "POST dead-letters") return settle(letters.find(({ id }) => id === second), third, who);
  if (name === "POST clusters" && third === "revoke") {
    Object.assign(clusters.find(({ id }) => id === second), { presence: "offline", agents: 0, revokedAt: now() });
    return ok(undefined, 204);
  }
  if (name === "DELETE clusters") {
    const [gone] = clusters.splice(clusters.findIndex(({ id }) => id === second), 1);
    return ok({ clusterId: gone.id, endedSessions: gone.reservedSessions });
  }
  if (name === "POST clusters" && second) {
    const found = clusters.find(({ id }) => id === second);
    const drained = third === "drain";
    Object.assign(found, { presence: drained ? "draining" : "online", drainedAt: drained ? now() : null, drainedBy: drained ? who.username : null });
    return drained ? ok({ cluster: found, hibernating: body?.hibernate ? found.runningSessions : 0 }, 202) : ok(found);
  }
  if (name === "POST clusters") return ok({ clusterId: body.id, natsUrls: ["tls://nats.example.org:4222"], credentials: "-----BEGIN NATS USER JWT-----\n(secret)\n------END NATS USER JWT------", tunnelUrl: "wss://streams.example.org" }, 201);
  if (name === "GET catalogs") return third === "report" ? ok({ catalog: catalogs[0], files: second === "starter" ? files : [] }) : ok({ items: catalogs });
  if (name === "POST catalogs") {
    if (!second) catalogs.push({ ...catalogs[1], id: body.name, name: body.name, url: body.url, branch: null, state: "syncing", error: null });
    return ok(catalogs.at(-1), 202);
  }
  if (name === "DELETE catalogs") return catalogs.splice(catalogs.findIndex(({ id }) => id === second), 1) && ok(undefined, 204);
  if (name === "GET sessions" && !second) {
    const items = [...sessions.values()].filter((session) => (query.get("everyone") === "true" || session.owner.userId === who.id) && (query.has("state") ? query.getAll("state").includes(session.state) : query.get("includeFinal") === "true" || !["terminated", "failed"].includes(session.state)));
    return ok({ items: items.sort((a, b) => b.createdAt.localeCompare(a.createdAt)), nextCursor: null });
  }
  if (name === "POST sessions" && !second) return createSession(who, body, headers["idempotency-key"]);
  if (first === "sessions") return ofSession(method, second, third, who, body);
  return notFound();
}

function follow(request, response, only) {
  const who = tokens.get((request.headers.authorization ?? "").replace("Bearer ", ""));
  if (!who) return send(response, problem(401, "unauthenticated", "Sign in first", "The access token is not valid."));
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.write("retry: 1000\n\n");
  const own = [...sessions.values()].filter(({ owner, state }) => owner.userId === who.id && state !== "terminated");
  const snapshot = only ? sessions.get(only) : { items: own, nextCursor: null };
  if (!request.headers["last-event-id"]) response.write(`id: ${sequence}\nevent: snapshot\ndata: ${JSON.stringify(snapshot)}\n\n`);
  const follower = { response, only };
  followers.add(follower);
  request.on("close", () => followers.delete(follower));
}

function send(response, { status, body, headers = {} }) {
  const type = status >= 400 ? "application/problem+json" : "application/json";
  response.writeHead(status, { "Content-Type": type, ...headers });
  response.end(body === undefined ? undefined : JSON.stringify(body));
}

function page(response, path) {
  let file = join(DIST, normalize(path));
  if (path === "/" || !existsSync(file)) file = join(DIST, "index.html");
  response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Content-Security-Policy": CSP });
  response.end(readFileSync(file));
}

const server = createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (!url.pathname.startsWith("/api/v1/")) return page(response, url.pathname);
  const path = url.pathname.slice("/api/v1/".length).split("/").map(decodeURIComponent);
  if (path.at(-1) === "events") return follow(request, response, path[0] === "sessions" ? path[1] : null);
  let text = "";
  request.on("data", (chunk) => (text += chunk));
  request.on("end", () => setTimeout(() => send(response, answer(request.method, path, url.searchParams, text ? JSON.parse(text) : {}, request.headers)), 120));
});

// The smallest desktop: RFB 3.8 over WebSocket, a picture of stripes, nothing more.
function rfb(socket) {
  const frame = (opcode, payload) => {
    const head = payload.length < 126 ? Buffer.from([0x80 | opcode, payload.length]) : Buffer.alloc(10);
    if (head.length === 10) {
      head[0] = 0x80 | opcode;
      head[1] = 127;
      head.writeBigUInt64BE(BigInt(payload.length), 2);
    }
    socket.write(Buffer.concat([head, payload]));
  };
  const close = (code, reason) => {
    const payload = Buffer.concat([Buffer.from([code >> 8, code & 255]), Buffer.from(reason)]);
    frame(8, payload);
    socket.end();
  };
  let [width, height, painted, step, pending] = [1024, 640, false, 0, Buffer.alloc(0)];
  const paint = () => {
    const head = Buffer.alloc(16);
    head.writeUInt16BE(1, 2);
    head.writeUInt16BE(width, 8);
    head.writeUInt16BE(height, 10);
    const pixels = Buffer.alloc(width * height * 4);
    for (let y = 0; y < height; y += 1) for (let x = 0; x < width; x += 1) pixels.writeUInt32LE((((x * 90) / width) << 16) | (((y * 120) / height) << 8) | ((x >> 6) % 2 ? 110 : 140), (y * width + x) * 4);
    frame(2, Buffer.concat([head, pixels]));
  };
  const message = (data) => {
    pending = Buffer.concat([pending, data]);
    for (;;) {
      const size = step === 0 ? 12 : step < 3 ? 1 : { 0: 20, 2: 4 + 4 * (pending.length > 3 ? pending.readUInt16BE(2) : 0), 3: 10, 4: 8, 5: 6, 6: 8 + (pending.length > 7 ? Math.abs(pending.readInt32BE(4)) : 0), 251: 24 }[pending[0]];
      if (pending.length === 0 || size === undefined || pending.length < size) return;
      const [one, rest] = [pending.subarray(0, size), pending.subarray(size)];
      pending = rest;
      if (step === 0) frame(2, Buffer.from([1, 1]));
      else if (step === 1) frame(2, Buffer.alloc(4));
      else if (step === 2) {
        const init = Buffer.from([0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 4, 102, 97, 107, 101]);
        init.writeUInt16BE(width, 0);
        init.writeUInt16BE(height, 2);
        frame(2, init);
      } else if (one[0] === 3 && !painted) {
        painted = true;
        paint();
      } else if (one[0] === 6) {
        const [, code, reason] = /^close (\d+) ?(.*)/s.exec(one.subarray(8).toString()) ?? [];
        if (code) close(Number(code), reason);
      }
      step = Math.min(step + 1, 3);
    }
  };
  frame(2, Buffer.from("RFB 003.008\n"));
  let raw = Buffer.alloc(0);
  socket.on("data", (chunk) => {
    raw = Buffer.concat([raw, chunk]);
    while (raw.length >= 6) {
      const short = raw[1] & 127;
      const [start, length] = short < 126 ? [2, short] : [4, raw.readUInt16BE(2)];
      if (raw.length < start + 4 + length) return;
      const mask = raw.subarray(start, start + 4);
      const payload = Buffer.from(raw.subarray(start + 4, start + 4 + length)).map((byte, index) => byte ^ mask[index % 4]);
      if ((raw[0] & 15) === 8) return socket.end();
      raw = raw.subarray(start + 4 + length);
      message(payload);
    }
  });
  return close;
}

server.on("upgrade", (request, socket) => {
  socket.on("error", () => socket.destroy());
  const accept = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: binary\r\n\r\n`);
  const ticket = /streamspace\.ticket\.(\w+)/.exec(request.headers["sec-websocket-protocol"] ?? "")?.[1];
  const session = tickets.get(ticket);
  tickets.delete(ticket);
  const close = rfb(socket);
  if (!session) return close(4401, "This ticket was used already or is too old.");
  const watch = setInterval(() => {
    if (session.state === "running") return;
    clearInterval(watch);
    close(session.state.startsWith("hibern") ? 4409 : 4410, `The session is ${session.state}.`);
  }, 300);
  socket.on("close", () => clearInterval(watch));
});
server.listen(PORT, "127.0.0.1", () => console.log(`http://127.0.0.1:${PORT}`));
