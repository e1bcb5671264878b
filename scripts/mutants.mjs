/**
 * Faults for the simulated accelerator's backend (plugins-template/native), one at a time: what a vendor may get wrong. `edits` replace text of a
 * file, which must be there exactly once (`all`: wherever it is). `where`: what the names of failing cases, or their messages, have to say.
 */
export const mutants = [
  {
    name: 'causal mask off by one',
    where: /attention/,
    edits: [['kernels/attention.h', 'std::min(position + 1, max_len_)', 'std::min(position + 2, max_len_)']],
  },
  {
    name: 'wrong scale of scores',
    where: /attention/,
    edits: [['kernels/attention.h', 'sum * attrs_.scale;', 'sum * attrs_.scale * 1.01f;']],
  },
  {
    name: 'no soft cap',
    where: /attention/,
    edits: [['kernels/attention.h', 'return attrs_.soft_cap > 0 ?', 'return attrs_.soft_cap < 0 ?']],
  },
  {
    name: 'sliding window off by one',
    where: /attention/,
    edits: [
      ['kernels/attention.h', 'position - attrs_.sliding_window + 1)', 'position - attrs_.sliding_window)'],
    ],
  },
  {
    name: 'heads read the wrong KV head',
    where: /attention/,
    edits: [
      [
        'kernels/attention.h',
        'head / (attrs_.num_heads / attrs_.num_kv_heads)',
        'head % attrs_.num_kv_heads',
      ],
    ],
  },
  {
    name: 'the second sequence reads the pages of the first',
    where: /attention|L3/,
    edits: [['kernels/attention.h', 'step_.block_table(seq)', 'step_.block_table(seq == 1 ? 0 : seq)']],
  },
  {
    name: 'padding is stored at slot 0',
    where: /kv_write|padding/,
    edits: [
      ['kernels/kv_write.h', 'if (p.slot_mapping[t] < 0) continue;', ''],
      ['kernels/kv_write.h', 'kv.At(p.slot_mapping[t],', 'kv.At(std::max(p.slot_mapping[t], 0),'],
    ],
  },
  {
    name: 'bias ignored',
    where: /linear/,
    edits: [['kernels/linear.h', '(p.bias == nullptr ? 0 : p.bias[first + i])', '0']],
  },
  {
    name: 'residual added twice',
    where: /linear_add/,
    edits: [
      [
        'kernels/linear.h',
        '(residual == nullptr ? 0 : residual[at])',
        '(residual == nullptr ? 0 : 2 * residual[at])',
      ],
    ],
  },
  {
    name: 'sums in bf16',
    where: /linear/,
    edits: [
      [
        'kernels/linear.h',
        'sums[i] += factor * value(column[i], k, i);',
        'sums[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(sums[i] + factor * value(column[i], k, i)) & 0xffff0000u);',
      ],
    ],
  },
  {
    name: 'a row depends on how many there are (batchInvariant is a lie)',
    where: /invarian|permut|L3|L4/,
    edits: [
      [
        'kernels/linear.h',
        'y.Set(at, sums[i] +',
        'y.Set(at, (p.rows > 4 ? sums[i] * (1 + 1.2e-7f) : sums[i]) +',
      ],
    ],
  },
  {
    name: 'bf16 by truncation',
    where: /bf16/,
    edits: [['kernels/operands.h', '(word + 0x7fff + (word >> 16 & 1)) >> 16', 'word >> 16']],
  },
  {
    name: 'interleaved rope ignored',
    where: /rope/,
    edits: [['kernels/rope.h', 'attrs.interleaved != 0', 'attrs.interleaved > 1', 'all']],
  },
  {
    name: 'elements beyond rotaryDim are lost',
    where: /rope/,
    edits: [['kernels/rope.h', 'i < at + attrs.head_dim', 'i < at + attrs.rotary_dim']],
  },
  {
    name: 'eps outside of the root',
    where: /rms_norm/,
    edits: [
      [
        'kernels/rms_norm.h',
        '1 / std::sqrt(sum / static_cast<float>(p.size) + p.eps)',
        '1 / (std::sqrt(sum / static_cast<float>(p.size)) + p.eps)',
      ],
    ],
  },
  {
    name: 'dynamic rope forgets the length of the prompt',
    where: /rope_cos_sin|dynamic/,
    edits: [
      [
        'kernels/rope_cos_sin.h',
        'seq < 0 ? 0 : step.Ints(tenon::StepRegion::kPromptLens)[seq]',
        'seq < 0 ? 0 : 0',
      ],
    ],
  },
  {
    name: 'gelu is gelu_tanh',
    where: /gated_act/,
    edits: [
      [
        'kernels/gated_act.h',
        'std::erf(x * 0.70710678f)',
        'std::tanh(0.79788456f * (x + 0.044715f * x * x * x))',
      ],
    ],
  },
  {
    name: 'the last token of another slot',
    where: /embedding|sample|L3|L4/,
    edits: [
      [
        'kernels/embedding.h',
        'sampler.last_token(step.Ints(tenon::StepRegion::kSeqSlots)[seq])',
        'sampler.last_token(seq)',
      ],
    ],
  },
  {
    name: 'a write beyond the output',
    where: /guard/,
    edits: [['kernels/add.h', 'i < p.elements', 'i <= p.elements']],
  },
  {
    name: 'ranks in the wrong order',
    where: /all_gather/,
    edits: [
      [
        'kernels/collectives.h',
        'x[static_cast<size_t>(col / cols)]',
        'x[static_cast<size_t>(size - 1 - col / cols)]',
      ],
    ],
  },
  {
    name: 'attention says that it can be replayed as it is',
    where: /capture/,
    edits: [['src/runtime/negotiate.h', 'tenon::CaptureState::kNeedsRebind', 'tenon::CaptureState::kSafe']],
  },
  {
    name: 'no reason why not',
    where: /reason/,
    edits: [
      [
        'src/runtime/negotiate.h',
        'if (!answer.reason.empty()) answer.support = tenon::OpSupport::kUnsupported;',
        'if (!answer.reason.empty()) answer.support = tenon::OpSupport::kUnsupported, answer.reason.clear();',
      ],
    ],
  },
  {
    name: 'a block of the KV cache takes more than it says',
    where: /kvBlockBytes|kv/i,
    edits: [
      [
        'src/runtime/backend.h',
        'return block.num_elements() * tenon::kDtypeBytes[static_cast<int32_t>(layer.dtype)];',
        'return block.num_elements() * tenon::kDtypeBytes[static_cast<int32_t>(layer.dtype)] / 2;',
      ],
    ],
  },
  {
    name: 'an unknown device is the first one',
    where: /L0\//,
    edits: [
      [
        'src/runtime/backend.h',
        'if (device == kNumDevices)\n',
        'if (device == kNumDevices) device = 0;\n    if (device == kNumDevices)\n',
      ],
    ],
  },
  {
    name: 'memory is not freed',
    where: /leak|L1\/memory/,
    edits: [['src/runtime/pool.h', 'while (!allocations_.empty()) Free(allocations_.begin()->first);', '']],
  },
  {
    name: 'every step allocates',
    where: /L4|allocat/,
    edits: [['src/runtime/sim_session.h', 'if (words <= size) return Status::Ok();', '']],
  },
  {
    name: 'a step is done before its results have come down',
    where: /L[1234]/,
    edits: [
      [
        'src/runtime/sim_session.h',
        'TENON_RETURN_IF_ERROR(download.Run([words, host, size] { std::copy_n(words, size, host); }));\n    stream_.EnqueueEnd();',
        'stream_.EnqueueEnd();\n    TENON_RETURN_IF_ERROR(download.Run([words, host, size] { std::copy_n(words, size, host); }));',
      ],
    ],
  },
];
