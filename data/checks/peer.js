// The answer's end of the protocol of sandbox/peer.py, for JavaScript and TypeScript.
// node -e THIS LANGUAGE TYPESCRIPT READ_FD WRITE_FD; TYPESCRIPT is the path of the package, if node cannot strip types.
(() => {
  "use strict"; // in a function, so that the answer sees none of these names
  const fs = require("node:fs");
  const vm = require("node:vm");
  const [language, typescript, ...ends] = process.argv.slice(1);
  const [readFd, writeFd] = ends.map(Number);
  const lent = [];
  let unread = Buffer.alloc(0);

  function receive() {
    for (;;) {
      const end = unread.indexOf("\n");
      if (end >= 0) {
        const line = unread.subarray(0, end).toString();
        unread = unread.subarray(end + 1);
        return JSON.parse(line);
      }
      const piece = Buffer.alloc(1 << 16);
      const length = fs.readSync(readFd, piece);
      if (length === 0) process.exit(0);
      unread = Buffer.concat([unread, piece.subarray(0, length)]);
    }
  }

  function send(message) {
    let data = Buffer.from(JSON.stringify(message) + "\n");
    while (data.length) data = data.subarray(fs.writeSync(writeFd, data));
  }

  function encode(value) {
    if (value === undefined || value === null) return null;
    if (typeof value === "boolean" || typeof value === "string") return value;
    if (typeof value === "number") {
      const isExact = Number.isInteger(value) ? Number.isSafeInteger(value) : Number.isFinite(value);
      return isExact ? value : { float: String(value) };
    }
    if (typeof value === "bigint") return { int: value.toString(16) }; // what int(text, 16) reads
    if (Array.isArray(value)) return { list: Array.from(value, encode) };
    if (Object.prototype.toString.call(value) !== "[object Object]") return { mine: lent.push(value) - 1 };
    return { dict: Object.entries(value).map(([key, item]) => [key, encode(item)]) };
  }

  function decode(data) {
    if (data === null) return undefined;
    if (typeof data !== "object") return data;
    const [[kind, content]] = Object.entries(data);
    if (kind === "list") return content.map(decode);
    if (kind === "dict") return Object.fromEntries(content.map(([key, item]) => [key, decode(item)]));
    if (kind === "yours") return lent[content];
    throw new TypeError(`JavaScript has no ${kind}`);
  }

  function raised(error) {
    const name = error instanceof Error ? error.name : "Error";
    const message = error instanceof Error ? error.message : String(error);
    return ["raised", name, ["SyntaxError", "TypeError"].includes(name) ? message : `${name}: ${message}`, null];
  }

  function withoutTypes(source) {
    const strip = require("node:module").stripTypeScriptTypes;
    if (strip) return strip(source, { mode: "transform" });
    const options = { reportDiagnostics: true, compilerOptions: { target: "ES2022" } };
    const { outputText, diagnostics } = require(typescript).transpileModule(source, options);
    if (diagnostics.length) throw new SyntaxError(String(diagnostics[0].messageText)); // it repairs what does not parse
    return outputText;
  }

  try {
    const { program, names } = receive();
    Object.assign(globalThis, { require, module: { exports: {} }, exports: {} });
    vm.runInThisContext(language === "ts" ? withoutTypes(program) : program, "answer");
    send(["lent", Object.fromEntries(names.map((name) => [name, lent.push(vm.runInThisContext(name)) - 1]))]);
  } catch (error) {
    send(raised(error));
  }
  for (;;) {
    const [kind, number, args] = receive();
    try {
      if (kind !== "call") throw new TypeError(`${kind} of an object that stays in JavaScript`);
      send(["value", encode(lent[number](...decode(args))), null]);
    } catch (error) {
      send(raised(error));
    }
  }
})();
