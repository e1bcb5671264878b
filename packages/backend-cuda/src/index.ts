/** @tenon/backend-cuda: NVIDIA GPUs as a Tenon backend. */
import { nativeBackend } from '@tenon/core/backend';

export default nativeBackend({
  id: 'cuda',
  owner: 'tenon',
  packageJson: new URL('../package.json', import.meta.url),
  addon: 'tenon_cuda',
});
