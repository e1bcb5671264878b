import { expect, it } from 'vitest';
import { strftime } from './strftime.js';

it('formats as Python does in the C locale', () => {
  const date = new Date(2024, 6, 4, 15, 5, 9);
  const formats = [
    '%d %b %Y',
    '%A, %B %e',
    '%Y-%m-%d %H:%M:%S',
    '%I:%M %p',
    '%a %y %j',
    '%F %T',
    '%-d.%-m.',
    '100%% %Q',
  ];
  expect(formats.map((format) => strftime(date, format))).toEqual([
    '04 Jul 2024',
    'Thursday, July  4',
    '2024-07-04 15:05:09',
    '03:05 PM',
    'Thu 24 186',
    '2024-07-04 15:05:09',
    '4.7.',
    '100% %Q',
  ]);
});
