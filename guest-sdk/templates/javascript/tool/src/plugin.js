// Adds two numbers. The host makes a fresh instance for every call.

const parameters = {
  type: 'object',
  properties: { a: { type: 'number' }, b: { type: 'number' } },
  required: ['a', 'b'],
};

export const tool = {
  describe() {
    return { name: '{{crate}}', description: 'Adds two numbers.', parameters: JSON.stringify(parameters) };
  },

  async call(text) {
    try {
      const { a, b } = JSON.parse(text);
      if (typeof a !== 'number' || typeof b !== 'number') throw new TypeError('a and b have to be numbers');
      return { content: String(a + b), isError: false };
    } catch (mistake) {
      // The model can read what was wrong and try again.
      return { content: `arguments: ${mistake.message}`, isError: true };
    }
  },
};
