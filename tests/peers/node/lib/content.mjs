//! Owns what the fixture servers of both eras say: the very tools' answers, prompts, resources and schemas that the official
//! conformance suite asks for. Plain data and pure functions; never imports an SDK.

/** A red picture of one pixel. */
export const PNG_BASE64 =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC';

/** A WAV file of no samples. */
export const WAV_BASE64 = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=';

/** A tool's answer of one text. */
export const text = (value) => ({ content: [{ type: 'text', text: value }] });

/** An object schema without properties. */
export const NO_ARGUMENTS = { type: 'object', properties: {} };

/** Tools whose answer never changes: name, description, answer. */
export const CONSTANT_TOOLS = [
  ['test_simple_text', 'Answers with one text', text('This is a simple text response for testing.')],
  ['test_image_content', 'Answers with a picture', { content: [image()] }],
  [
    'test_audio_content',
    'Answers with a sound',
    { content: [{ type: 'audio', data: WAV_BASE64, mimeType: 'audio/wav' }] },
  ],
  [
    'test_embedded_resource',
    'Answers with an embedded resource',
    { content: [embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')] },
  ],
  [
    'test_multiple_content_types',
    'Answers with a text, a picture and a resource',
    {
      content: [
        { type: 'text', text: 'Multiple content types test:' },
        image(),
        embedded('test://mixed-content-resource', 'application/json', JSON.stringify({ test: 'data', value: 123 })),
      ],
    },
  ],
];

/** What `test_error_handling` says in its `isError` result. */
export const TOOL_ERROR = 'This tool intentionally returns an error for testing';

/** The three log lines of `test_tool_with_logging`. */
export const LOG_LINES = ['Tool execution started', 'Tool processing data', 'Tool execution completed'];

/** The steps of `test_tool_with_progress`, out of a hundred. */
export const PROGRESS_STEPS = [0, 50, 100];

/** The pause between two log lines or progress steps, in milliseconds. */
export const STEP_MS = 50;

/** Keywords of JSON Schema 2020-12 that must come through a listing unharmed. */
export const SCHEMA_2020_12 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: {
    address: {
      $anchor: 'addressDef',
      type: 'object',
      properties: { street: { type: 'string' }, city: { type: 'string' } },
    },
  },
  properties: {
    name: { type: 'string' },
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: { type: 'string' },
    email: { type: 'string' },
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
};

/** The form of `test_elicitation`. */
export const USER_FORM = {
  type: 'object',
  properties: {
    username: { type: 'string', description: "User's response" },
    email: { type: 'string', description: "User's email address" },
  },
  required: ['username', 'email'],
};

/** A form with a default of every primitive type. */
export const DEFAULTS_FORM = {
  type: 'object',
  properties: {
    name: { type: 'string', description: 'Name', default: 'John Doe' },
    age: { type: 'integer', description: 'Age', default: 30 },
    score: { type: 'number', description: 'Score', default: 95.5 },
    status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
    verified: { type: 'boolean', description: 'Verified', default: true },
  },
  required: [],
};

/** A form with every kind of enumeration. */
export const ENUMS_FORM = {
  type: 'object',
  properties: {
    untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
    titledSingle: { type: 'string', oneOf: titled('Option') },
    legacyEnum: {
      type: 'string',
      enum: ['opt1', 'opt2', 'opt3'],
      enumNames: ['Option One', 'Option Two', 'Option Three'],
    },
    untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
    titledMulti: { type: 'array', items: { anyOf: titled('Choice') } },
  },
  required: [],
};

/** A form of one field that must be given. */
export const oneField = (name, type) => ({ type: 'object', properties: { [name]: { type } }, required: [name] });

/** The resources with an address of their own. */
export const RESOURCES = [
  {
    uri: 'test://static-text',
    name: 'static-text',
    description: 'A text that never changes',
    mimeType: 'text/plain',
    content: { text: 'This is the content of the static text resource.' },
  },
  {
    uri: 'test://static-binary',
    name: 'static-binary',
    description: 'A picture that never changes',
    mimeType: 'image/png',
    content: { blob: PNG_BASE64 },
  },
  {
    uri: 'test://watched-resource',
    name: 'watched-resource',
    description: 'A text that can be watched',
    mimeType: 'text/plain',
    content: { text: 'Watched resource content' },
  },
];

/** The template of resources that have a number. */
export const TEMPLATE = {
  uriTemplate: 'test://template/{id}/data',
  name: 'template',
  description: 'Data of a number',
  mimeType: 'application/json',
};

/** What a resource of the template reads. */
export const templateContent = (uri, id) => ({
  uri,
  mimeType: TEMPLATE.mimeType,
  text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }),
});

/** The prompts: name, description, arguments (all required) and what they become. */
export const PROMPTS = [
  {
    name: 'test_simple_prompt',
    description: 'A prompt without arguments',
    arguments: [],
    messages: () => [user({ type: 'text', text: 'This is a simple prompt for testing.' })],
  },
  {
    name: 'test_prompt_with_arguments',
    description: 'A prompt with two arguments',
    arguments: [
      { name: 'arg1', description: 'First test argument', required: true },
      { name: 'arg2', description: 'Second test argument', required: true },
    ],
    messages: ({ arg1, arg2 }) => [
      user({ type: 'text', text: `Prompt with arguments: arg1='${arg1}', arg2='${arg2}'` }),
    ],
  },
  {
    name: 'test_prompt_with_embedded_resource',
    description: 'A prompt that embeds a resource',
    arguments: [{ name: 'resourceUri', description: 'URI of the resource to embed', required: true }],
    messages: ({ resourceUri }) => [
      user(embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.')),
      user({ type: 'text', text: 'Please process the embedded resource above.' }),
    ],
  },
  {
    name: 'test_prompt_with_image',
    description: 'A prompt with a picture',
    arguments: [],
    messages: () => [user(image()), user({ type: 'text', text: 'Please analyze the image above.' })],
  },
];

/** The completions offered for an argument that begins with `value`. */
export const complete = (value) => ['paris', 'park', 'party', 'test', 'testing'].filter((word) => word.startsWith(value));

/** Resolves after `ms` milliseconds, or at once when `signal` says that nobody waits any more. */
export const pause = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });

/** Longest wait of `test_wait`, in milliseconds. */
const MAX_WAIT_MS = 10_000;
/** Cancelled waits that are remembered. */
const MAX_CANCELLED = 1024;

/** Remembers which waits ended because the client did not want them any more. */
export class CancelLog {
  #keys = new Set();

  /** Says `begun`, then waits until `signal` says that the client cancelled, or for `MAX_WAIT_MS`. */
  async wait(key, signal, begun) {
    await begun();
    await pause(MAX_WAIT_MS, signal);
    if (signal.aborted && this.#keys.size < MAX_CANCELLED) this.#keys.add(key);
    return text('Waited');
  }

  /** `cancelled` or `unknown`. */
  tell(key) {
    return this.#keys.has(key) ? 'cancelled' : 'unknown';
  }
}

function image() {
  return { type: 'image', data: PNG_BASE64, mimeType: 'image/png' };
}

function embedded(uri, mimeType, value) {
  return { type: 'resource', resource: { uri, mimeType, text: value } };
}

function titled(noun) {
  return ['First', 'Second', 'Third'].map((word, i) => ({ const: `value${i + 1}`, title: `${word} ${noun}` }));
}

function user(content) {
  return { role: 'user', content };
}
