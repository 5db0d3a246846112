import js from '@eslint/js';
import tseslint from 'typescript-eslint';

const noInsecureRandom = {
  selector: "MemberExpression[object.name='Math'][property.name='random']",
  message: 'Math.random is banned: pass a RandomSource (protection) or a seeded generator (training, splits).',
};
const noExit = {
  selector: "MemberExpression[object.name='process'][property.name='exit']",
  message: 'Only an entry point (main.ts) ends the process: throw a FederationError or set process.exitCode there.',
};
/** The pure core: no I/O, clock, timers, sockets, tensor library or randomness of its own. */
const impure = [
  { selector: "MemberExpression[object.name='Date'][property.name='now']", message: 'Pass a Clock.' },
  { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: 'Pass a Clock.' },
  { selector: "CallExpression[callee.name=/^(setTimeout|setInterval|setImmediate)$/]", message: 'Pass a Clock: an effect asks for a timer.' },
];
const forbid = (...patterns) => ({
  '@typescript-eslint/no-restricted-imports': ['error', { patterns: patterns.map(([regex, message]) => ({ regex, message })) }],
});
const tfjs = ['^@tensorflow/', 'Only shared/compute and shared/models import TF.js.'];
const node = ['^(node:|fs$|path$|crypto$)', 'The pure core has no I/O: Node belongs in shared/node and in the apps.'];
const sockets = ['^(socket\\.io|express|helmet|pino|prom-client)', 'Sockets, HTTP and logging libraries belong in the apps.'];

export default tseslint.config(
  { ignores: ['dist/**', 'runs/**', 'coverage/**', 'node_modules/**', 'bench/peers/**', '**/public/**'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/require-await': 'off',
      'no-restricted-syntax': ['error', noInsecureRandom, noExit],
      eqeqeq: 'error',
    },
  },
  { files: ['shared/**/*.ts'], rules: forbid(['/(server|client|simulations|test|bench)/', 'shared imports no app.'], tfjs, node, sockets) },
  {
    files: ['shared/{types,ports,protocol,config,rounds,distillation,evaluation,privacy,secure-aggregation,datasets}/**/*.ts', 'shared/*.ts'],
    rules: { 'no-restricted-syntax': ['error', noInsecureRandom, noExit, ...impure] },
  },
  { files: ['shared/{compute,models}/**/*.ts'], rules: forbid(['/(server|client|simulations|test|bench)/', 'shared imports no app.'], sockets) },
  { files: ['shared/node/**/*.ts'], rules: forbid(['/(server|client|simulations|test|bench)/', 'shared imports no app.'], tfjs, ['^(socket\\.io|express)', 'Sockets belong in the apps.']) },
  { files: ['server/**/*.ts'], rules: forbid(['/(client|simulations|test|bench)/', 'server imports shared only.'], tfjs) },
  { files: ['client/**/*.ts'], rules: forbid(['/(server|simulations|test|bench)/', 'client imports shared only.'], tfjs) },
  { files: ['simulations/**/*.ts'], rules: forbid(['/(test|bench)/', 'simulations import server, client and shared.'], tfjs) },
  { files: ['**/main.ts'], rules: { 'no-restricted-syntax': ['error', noInsecureRandom] } },
  { files: ['test/**/*.ts', 'bench/**/*.ts'], rules: { '@typescript-eslint/no-unsafe-assignment': 'off', '@typescript-eslint/no-unsafe-member-access': 'off', '@typescript-eslint/no-non-null-assertion': 'off' } },
  { files: ['**/*.js', '**/*.mjs'], languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly', Buffer: 'readonly' } } },
);
