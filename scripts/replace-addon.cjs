/** Preloaded (`node --require`): loads the file that ADDON names in place of the CPU backend's addon, in every thread. */
const { _extensions: extensions } = require('node:module');

const load = extensions['.node'];
extensions['.node'] = (module, file) =>
  load(module, file.endsWith('tenon_cpu.node') ? process.env.ADDON : file);
