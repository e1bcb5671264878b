/** @tenon/backend-cpu: the CPU as a Tenon backend. */
import { nativeBackend } from '@tenon/core/backend';

export default nativeBackend({
  id: 'cpu',
  owner: 'tenon',
  addon: 'tenon_cpu',
  packageJson: new URL('../package.json', import.meta.url),
});
