/** The entry point that package.json names: the contract of @tenon/core/backend over the native addon. */
import { nativeBackend } from '@tenon/core/backend';

export default nativeBackend({
  id: 'template',
  owner: 'example',
  addon: 'tenon_backend_template',
  packageJson: new URL('package.json', import.meta.url),
});
