// Masks the words of a list, in conversations and in streams.
//
// The host makes a fresh instance for every call. Configuration is the `config` object of the binding:
// `{"words": ["darn"]}`.

import { get } from 'stockade:plugin/config@0.1.0';

/** The words, longest first. */
function words() {
  const found = JSON.parse(get()).words ?? [];
  return found.filter((word) => word !== '').sort((a, b) => b.length - a.length);
}

/** All words in a text, in order: where each begins and ends. */
function find(text) {
  const list = words();
  const found = [];
  for (let at = 0; at < text.length; ) {
    const word = list.find((w) => text.startsWith(w, at));
    if (word) found.push({ start: at, end: at + word.length });
    at += word ? word.length : 1;
  }
  return found;
}

/** Where the first word begins that the text's end may cut short; the text's end where there is none. */
function undecided(text) {
  const list = words();
  for (let at = 0; at < text.length; at += 1) {
    const end = text.slice(at);
    if (list.some((word) => word.length > end.length && word.startsWith(end))) return at;
  }
  return text.length;
}

function mask(text) {
  let masked = '';
  let at = 0;
  for (const { start, end } of find(text)) {
    masked += `${text.slice(at, start)}***`;
    at = end;
  }
  return masked + text.slice(at);
}

/** Length in UTF-8, as the host counts. */
function bytes(text) {
  let n = 0;
  for (const character of text) {
    const code = character.codePointAt(0);
    n += code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  }
  return n;
}

/** One channel of a reply. */
class Session {
  constructor(channel, conversation) {
    this.text = ''; // what is not decided yet
    this.base = 0; // its offset in the channel, in bytes
  }

  async feed(text) {
    this.text += text;
    return this.rule(false);
  }

  async finish() {
    return this.rule(true);
  }

  rule(complete) {
    // From `limit` on the text may be the beginning of a word; whatever begins before it has come whole.
    const limit = complete ? this.text.length : undecided(this.text);
    const edits = [];
    let at = limit;
    for (const { start, end } of find(this.text)) {
      if (start < limit) {
        edits.push({ start: this.offset(start), end: this.offset(end), replacement: '***' });
        at = Math.max(at, end);
      }
    }
    this.base = this.offset(at);
    this.text = this.text.slice(at);
    return { cleared: this.base, edits, violation: undefined };
  }

  offset(at) {
    return this.base + bytes(this.text.slice(0, at));
  }
}

export const shield = {
  /** Most bytes that a session keeps back: a word that has not come whole yet. */
  holdBack() {
    return Math.max(0, ...words().map(bytes));
  },

  async check(direction, messages) {
    let edited = false;
    for (const message of messages) {
      for (const part of message.parts) {
        if (part.tag === 'text' && find(part.val).length > 0) {
          part.val = mask(part.val);
          edited = true;
        }
      }
    }
    return edited ? { tag: 'edit', val: messages } : { tag: 'pass' };
  },

  Session,
};
