/** The symbols that an ELF shared object offers others: its dynamic symbol table, read without any tool. */

/** Undefined for a file that is no 64-bit little-endian ELF file. */
export function exportedSymbols(file: Buffer): string[] | undefined {
  const isElf = file.length >= 64 && file.readUInt32BE(0) === 0x7f454c46;
  if (!isElf || file[4] !== 2 || file[5] !== 1) return undefined;
  const sections = readSections(file);
  const symbols = sections.find(({ type }) => type === dynamicSymbols);
  if (symbols === undefined) return [];
  const names = sections[symbols.link]!;
  const exported: string[] = [];
  for (let at = symbols.offset; at < symbols.offset + symbols.size; at += 24) {
    if (isExported(file, at)) exported.push(textAt(file, names.offset + file.readUInt32LE(at)));
  }
  return exported;
}

const dynamicSymbols = 11;

interface Section {
  readonly type: number;
  readonly offset: number;
  readonly size: number;
  /** Number of the section that holds its names. */
  readonly link: number;
}

function readSections(file: Buffer): Section[] {
  const tableAt = Number(file.readBigUInt64LE(40));
  const [entrySize, count] = [file.readUInt16LE(58), file.readUInt16LE(60)];
  return Array.from({ length: count }, (_, i) => {
    const at = tableAt + i * entrySize;
    return {
      type: file.readUInt32LE(at + 4),
      offset: Number(file.readBigUInt64LE(at + 24)),
      size: Number(file.readBigUInt64LE(at + 32)),
      link: file.readUInt32LE(at + 40),
    };
  });
}

/** Defined here, not local, and of default or protected visibility. */
function isExported(file: Buffer, at: number): boolean {
  const binding = file[at + 4]! >> 4;
  const visibility = file[at + 5]! & 3;
  const section = file.readUInt16LE(at + 6);
  return section !== 0 && binding !== 0 && (visibility === 0 || visibility === 3);
}

function textAt(file: Buffer, at: number): string {
  return file.toString('latin1', at, file.indexOf(0, at));
}
