import { nativeBackend } from '@tenon/core/backend';

export default nativeBackend({
  id: 'timed',
  owner: 'tenon',
  addon: 'tenon_timed',
  packageJson: new URL('package.json', import.meta.url),
});
