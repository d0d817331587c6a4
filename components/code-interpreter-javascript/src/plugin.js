// Runs a model's JavaScript. The host makes a fresh instance for every call, so nothing outlives one.
import { get as configuration } from 'stockade:plugin/config@0.1.0';
import { random } from 'stockade:plugin/system@0.1.0';

const parameters = {
  type: 'object',
  properties: {
    code: {
      type: 'string',
      description:
        'JavaScript (ES2023, a script; `await` at the top is fine). What console.log prints and the value of the last ' +
        'expression are returned. There is no network and no Node.',
    },
    files: {
      type: 'object',
      additionalProperties: { type: 'string' },
      description: 'Texts by name, in the object `files`; what is added or changed there is returned.',
    },
  },
  required: ['code'],
};

export const tool = {
  describe() {
    const description = 'Runs JavaScript code and returns what it prints and the value of its last expression.';
    return { name: 'code_interpreter_javascript', description, parameters: JSON.stringify(parameters) };
  },

  async call(text) {
    let given;
    try {
      given = JSON.parse(text);
      if (typeof given.code !== 'string') throw new TypeError('code has to be a text');
      given.files ??= {};
      if (Object.values(given.files).some((f) => typeof f !== 'string')) throw new TypeError('files have to be texts');
    } catch (mistake) {
      return { content: `arguments: ${mistake.message}`, isError: true };
    }
    const most = JSON.parse(configuration()).max_output ?? 20000;
    const result = await run(given.code, given.files, most);
    return { content: JSON.stringify(result), isError: 'error' in result };
  },
};

async function run(code, given, most) {
  const printed = { stdout: '', stderr: '' };
  const print = (stream) => (...values) => {
    // What is beyond the bound is counted out at the end; it is not kept.
    if (printed[stream].length <= most) printed[stream] += values.map(shown).join(' ') + '\n';
  };
  globalThis.console = { log: print('stdout'), info: print('stdout'), debug: print('stdout'), warn: print('stderr'), error: print('stderr') };
  globalThis.files = { ...given };
  Math.random = seeded();
  const result = {};
  try {
    let value = (0, eval)(code);
    if (value instanceof Promise) value = await value;
    if (value !== undefined) result.value = cut(shown(value), most);
  } catch (error) {
    result.error = cut(explained(error), most);
  }
  const entries = Object.entries(globalThis.files ?? {}).filter(([name, f]) => typeof f === 'string' && given[name] !== f);
  if (entries.length > 0) result.files = Object.fromEntries(entries);
  return { stdout: cut(printed.stdout, most), stderr: cut(printed.stderr, most), ...result };
}

// The engine's own generator was fixed when the component was built (xorshift128+, seeded by the host).
function seeded() {
  const state = new BigUint64Array(new Uint8Array(random(16)).buffer);
  return () => {
    let [a, b] = state;
    a ^= (a << 23n) & 0xffffffffffffffffn;
    state[0] = b;
    state[1] = a ^ b ^ (a >> 17n) ^ (b >> 26n);
    return Number((state[0] + state[1]) & 0x1fffffffffffffn) / 2 ** 53;
  };
}

function shown(value) {
  if (typeof value === 'string') return value;
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function' || typeof value === 'symbol') return String(value);
  if (value instanceof Error) return explained(value);
  if (value instanceof Map) return `Map ${shown([...value])}`;
  if (value instanceof Set) return `Set ${shown([...value])}`;
  try {
    return JSON.stringify(value, (_, v) => (typeof v === 'bigint' ? `${v}n` : v)) ?? String(value);
  } catch {
    return String(value);
  }
}

function explained(error) {
  if (!(error instanceof Error)) return `uncaught ${shown(error)}`;
  const stack = (error.stack ?? '').split('\n').filter((line) => line.includes('<evaluate>') || line.includes('<eval>'));
  return [`${error.name}: ${error.message}`, ...stack.slice(0, 10)].join('\n').trim();
}

function cut(text, most) {
  return text.length <= most ? text : `${text.slice(0, most)}\n[cut after ${most} characters]`;
}
