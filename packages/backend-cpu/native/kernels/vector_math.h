// Exponentials and activations on sixteen f32 lanes. Polynomials are minimax fits (Remez) of this project; errors are
// relative, before rounding.
#pragma once

#include "elements.h"

namespace tenon_cpu::TENON_ISA {

// 2^x. With n = floor(x) and r = x - n in [0, 1): 2^n (1 + r q(r)), error 8.3e-8. 2^0 = 1 and 2^-inf = 0 exactly; NaN
// stays.
TENON_INLINE V Exp2(V x) {
  x = ClampExponent(x);
  const V r = FractionOf(x);
  V q = Broadcast(0.001867130212f);
  q = Fma(q, r, Broadcast(0.009017029963f));
  q = Fma(q, r, Broadcast(0.05579991343f));
  q = Fma(q, r, Broadcast(0.24016445f));
  q = Fma(q, r, Broadcast(0.6931513118f));
  return ScaleByFloor(Fma(q, r, Broadcast(1.0f)), x);
}

// The same with error 8.6e-5, for what is rounded to bf16 (4e-3) at once. 2^0 = 1 here too.
TENON_INLINE V Exp2Coarse(V x) {
  x = ClampExponent(x);
  const V r = FractionOf(x);
  V q = Broadcast(0.07706699f);
  q = Fma(q, r, Broadcast(0.22764505f));
  q = Fma(q, r, Broadcast(0.69511677f));
  return ScaleByFloor(Fma(q, r, Broadcast(1.0f)), x);
}

// e^x. With n = round(x / ln 2) and r = x - n ln 2 (ln 2 in two parts): 2^n (1 + r + r² q(r)), error 3.1e-9.
TENON_INLINE V Exp(V x) {
  x = Min(Broadcast(110.0f), Max(Broadcast(-110.0f), x));
  const V n = Round(Mul(x, Broadcast(1.44269504088896f)));
  V r = Fma(n, Broadcast(-0.693145751953125f), x);
  r = Fma(n, Broadcast(-1.42860682030941723e-6f), r);
  V q = Broadcast(0.001381461327f);
  q = Fma(q, r, Broadcast(0.008368709824f));
  q = Fma(q, r, Broadcast(0.04166838736f));
  q = Fma(q, r, Broadcast(0.1666652069f));
  q = Fma(q, r, Broadcast(0.4999999345f));
  return Ldexp(Add(Fma(Mul(r, r), q, r), Broadcast(1.0f)), n);
}

// tanh x: x + x³ q(x²) below 0.625 (error 4.1e-9), else 1 - 2 / (e^2|x| + 1) with the sign of x.
TENON_INLINE V Tanh(V x) {
  const V u = Mul(x, x);
  V q = Broadcast(-0.005717045478f);
  q = Fma(q, u, Broadcast(0.0206505877f));
  q = Fma(q, u, Broadcast(-0.05374349821f));
  q = Fma(q, u, Broadcast(0.1333149129f));
  q = Fma(q, u, Broadcast(-0.3333328393f));
  const V small = Fma(Mul(x, u), q, x);
  const V magnitude = Abs(x);
  const V e = Exp(Add(magnitude, magnitude));
  const V large = Sub(Broadcast(1.0f), Div(Broadcast(2.0f), Add(e, Broadcast(1.0f))));
  const V signed_large = SelectLess(x, Zero(), Sub(Zero(), large), large);
  return SelectLess(magnitude, Broadcast(0.625f), small, signed_large);
}

// x / (1 + e^-x).
TENON_INLINE V Silu(V x) { return Div(x, Add(Broadcast(1.0f), Exp(Sub(Zero(), x)))); }

// x (1 + erf(x / √2)) / 2, by the C library, lane by lane: no model of today uses it on a hot path.
inline V GeluErf(V x) {
  float lanes[16];
  Store(lanes, x);
  for (float& lane : lanes) lane = 0.5f * lane * erfcf(-0.70710678118654752f * lane);
  return Load(lanes);
}

// x (1 + tanh u) / 2 = x / (1 + e^-2u), u = √(2/π) (x + 0.044715 x³).
TENON_INLINE V GeluTanh(V x) {
  const V cubic = Fma(Mul(Broadcast(0.044715f), Mul(x, x)), x, x);
  return Div(x, Add(Broadcast(1.0f), Exp(Mul(Broadcast(-1.5957691216057308f), cubic))));
}

// Values of the `activation` attribute.
enum Activation { kSilu = 0, kGelu = 1, kGeluTanh = 2 };

TENON_INLINE V Activate(V x, int32_t activation) {
  if (activation == kSilu) return Silu(x);
  if (activation == kGelu) return GeluErf(x);
  return GeluTanh(x);
}

}  // namespace tenon_cpu::TENON_ISA
