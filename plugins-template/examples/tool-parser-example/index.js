/**
 * Tool calls of a model that was trained to write each as a line, `call <name> <arguments as JSON>`:
 *
 *   I look it up.
 *   call weather {"city": "Oslo"}
 *
 *   tenon serve --plugin ./tool-parser-example --enable-auto-tool-choice --tool-call-parser call-lines
 */

/** @type {import('@tenon/core/extensions').ToolParserExtension} */
export default {
  // Once per choice of an answer. `{ tools }` are the request's, for formats that need them.
  create() {
    let line = '';
    return {
      // The text comes in pieces of any length. A line counts when it is whole; until then it is held back.
      push(text) {
        const lines = (line + text).split('\n');
        line = lines.pop();
        return lines.flatMap((whole) => readLine(`${whole}\n`));
      },
      // The last line has no end.
      finish() {
        return line === '' ? [] : readLine(line);
      },
    };
  },
};

/** What is no call stays text, so nothing that a model writes gets lost. */
function readLine(line) {
  const [, name, json] = /^call (\w+) (\{.*\})\s*$/.exec(line) ?? [];
  if (name === undefined) return [{ type: 'content', text: line }];
  return [
    { type: 'call', name },
    { type: 'arguments', json },
  ];
}
