/** Writes the snapshots of the contract's parts that tests/contract-snapshots lacks; with --again, also of those that have changed. */
import { contractParts } from './contract-parts.js';
import { findChange, writeSnapshots } from './contract-snapshots.js';

const parts = contractParts();
for (const file of writeSnapshots(parts, process.argv.includes('--again'))) console.log(`wrote ${file}`);
for (const part of parts) {
  const change = findChange(part);
  if (change === undefined) continue;
  console.error(change);
  process.exitCode = 1;
}
