import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { helpTopic, showHelp } from './help.js';
import { optionTable } from './option-table.js';
import { addOptions } from './parse-options.js';

function helpOn(topic: string): string {
  let text = '';
  const command = addOptions(new Command('serve')).option('--config <file>', 'YAML');
  showHelp(command.configureOutput({ writeOut: (words) => (text += words) }), topic);
  return text;
}

const namesIn = (help: string): string[] =>
  [...help.matchAll(/^ +--([\w-]+)/gm)].map(([, name]) => name ?? '');

describe('helpTopic', () => {
  it.each([
    [['model', '--port', '1'], undefined],
    [['--help'], ''],
    [['-h', '--port', '1'], ''],
    [['model', '--help', 'all'], 'all'],
    [['--help=memory'], 'memory'],
  ])('of %j is %j', (argv, topic) => {
    expect(helpTopic(argv)).toBe(topic);
  });
});

describe('showHelp', () => {
  it('is short without a topic, says where the rest is, and has the groups in order', () => {
    const help = helpOn('');
    expect(help.split('\n').length).toBeLessThan(60);
    expect(namesIn(help)).toEqual(
      expect.arrayContaining(['config', 'port', 'max-model-len', 'max-num-seqs']),
    );
    expect(namesIn(help)).not.toContain('allowed-origins');
    expect(help).toMatch(/Model:[^]*Server:[^]*Memory:[^]*Scheduling:[^]*Logging:/);
    expect(help).toContain('--help all');
  });

  it('shows all, a group, an option', () => {
    expect(namesIn(helpOn('all'))).toEqual(optionTable.map(({ name }) => name));
    expect(new Set(namesIn(helpOn('Memory')))).toEqual(
      new Set(optionTable.filter(({ group }) => group === 'Memory').map(({ name }) => name)),
    );
    expect(namesIn(helpOn('--max_num_seqs'))).toEqual(['max-num-seqs']);
    expect(namesIn(helpOn('log-requests'))).toEqual(['log-requests']);
  });

  it('names the topics where it has none', () => {
    expect(() => helpOn('CacheConfig')).toThrow(/no help on 'cacheconfig'; expected all, model, .*, logging/);
  });
});
