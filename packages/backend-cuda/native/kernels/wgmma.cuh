// What sm_90 adds, as functions: memory barriers in shared memory, bulk copies of tiles (TMA), clusters, the tensor cores of a
// warp group (wgmma, sm_90a only). Device code that calls them is compiled where TENON_SM90A is defined.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "mma.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TENON_SM90A
#endif

namespace tenon_cuda {

// ---- barriers ----
// A phase of a barrier ends when its arrivals and the bytes that it was told to expect are there. Waiting takes the parity of the
// phase: 0 for the first.

__device__ __forceinline__ void BarrierInit(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(SharedAddress(barrier)), "r"(arrivals));
}
// After BarrierInit, before a cluster or the copy engine may see the barriers.
__device__ __forceinline__ void BarrierInitFence() { asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory"); }
// Arrives, and says that `bytes` more will come.
__device__ __forceinline__ void BarrierExpect(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(SharedAddress(barrier)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void BarrierArrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];\n" ::"r"(SharedAddress(barrier)) : "memory");
}
// At the same barrier of block `rank` of the cluster. Orders nothing (a release for a cluster would wait for all of this thread's
// memory): for those who have only read through the tensor cores, and waited for them.
__device__ __forceinline__ void BarrierArriveAt(uint64_t* barrier, int rank) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [remote];\n}\n" ::"r"(SharedAddress(barrier)),
      "r"(rank)
      : "memory");
}
__device__ __forceinline__ void BarrierWait(uint64_t* barrier, uint32_t parity) {
  uint32_t done = 0;
  while (done == 0)
    asm volatile(
        "{\n.reg .pred done;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
        "selp.u32 %0, 1, 0, done;\n}\n"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
}

// ---- tiles ----

// What is read once goes first from the second-level cache.
__device__ __forceinline__ uint64_t EvictFirst() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t EvictLast() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t EvictNormal() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;\n" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ void LoadTile2(void* shared, const CUtensorMap* map, int c0, int c1, uint64_t* barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4}], "
      "[%2], %5;\n" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(c0), "r"(c1), "l"(policy)
      : "memory");
}
__device__ __forceinline__ void LoadTile4(void* shared, const CUtensorMap* map, int c0, int c1, int c2, int c3, uint64_t* barrier,
                                          uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4, %5, "
      "%6}], [%2], %7;\n" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3), "l"(policy)
      : "memory");
}
// To the same place of every block of the cluster in `blocks` (a bit each), and counted at the same barrier of each.
__device__ __forceinline__ void LoadTile2To(uint16_t blocks, void* shared, const CUtensorMap* map, int c0, int c1, uint64_t* barrier,
                                            uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint [%0], "
      "[%1, {%3, %4}], [%2], %5, %6;\n" ::"r"(SharedAddress(shared)),
      "l"(map), "r"(SharedAddress(barrier)), "r"(c0), "r"(c1), "h"(blocks), "l"(policy)
      : "memory");
}
// From shared memory, which what this thread has fenced is in (FenceStores), to global memory; elements outside the map are left out.
__device__ __forceinline__ void StoreTile2(const CUtensorMap* map, const void* shared, int c0, int c1) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];\n" ::"l"(map),
               "r"(SharedAddress(shared)), "r"(c0), "r"(c1)
               : "memory");
}
// The same, added to what is there; of f32.
__device__ __forceinline__ void AddTile2(const CUtensorMap* map, const void* shared, int c0, int c1) {
  asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3}], [%1];\n" ::"l"(map),
               "r"(SharedAddress(shared)), "r"(c0), "r"(c1)
               : "memory");
}
// Orders this thread's stores to shared memory before what the copy engine reads.
__device__ __forceinline__ void FenceStores() { asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory"); }
__device__ __forceinline__ void CommitStores() { asm volatile("cp.async.bulk.commit_group;\n" ::: "memory"); }
// Until all but the last kPending groups of this thread's stores have read shared memory.
template <int kPending>
__device__ __forceinline__ void WaitStoresRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;\n" ::"n"(kPending) : "memory");
}
// Until all of this thread's stores are done.
__device__ __forceinline__ void WaitStores() { asm volatile("cp.async.bulk.wait_group 0;\n" ::: "memory"); }
// To the second-level cache only.
__device__ __forceinline__ void PrefetchTile2(const CUtensorMap* map, int c0, int c1) {
  asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];\n" ::"l"(map), "r"(c0), "r"(c1) : "memory");
}
__device__ __forceinline__ void PrefetchTile4(const CUtensorMap* map, int c0, int c1, int c2, int c3) {
  asm volatile("cp.async.bulk.prefetch.tensor.4d.L2.global.tile [%0, {%1, %2, %3, %4}];\n" ::"l"(map), "r"(c0), "r"(c1), "r"(c2),
               "r"(c3)
               : "memory");
}
__device__ __forceinline__ void PrefetchMap(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(map) : "memory");
}

// ---- clusters ----

// Every thread of every block of the cluster. Orders no memory: after BarrierInitFence, or before a block ends.
__device__ __forceinline__ void ClusterMeet() {
  asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;\n" ::: "memory");
}
// The same; what they wrote to shared memory before is seen after.
__device__ __forceinline__ void ClusterSync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;\n" ::: "memory");
}
// Four floats at the same place of block `rank`'s shared memory.
__device__ __forceinline__ float4 LoadFrom(const float* shared, int rank) {
  float4 v;
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %4, %5;\n"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [remote];\n}\n"
      : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
      : "r"(SharedAddress(shared)), "r"(rank)
      : "memory");
  return v;
}

// ---- warp groups ----

template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
}
// Of `threads` threads of the block that name the same barrier.
__device__ __forceinline__ void NamedBarrier(int name, int threads) {
  asm volatile("bar.sync %0, %1;\n" ::"r"(name), "r"(threads) : "memory");
}
__device__ __forceinline__ void WgmmaFence() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ __forceinline__ void WgmmaCommit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Names a tile [rows][64] of 16-bit elements in shared memory: 128 bytes a row, swizzled over 8 rows as the copy engine's 128-byte
// swizzle does, aligned to 1024 bytes. The next 16 elements of k are 2 further.
__device__ __forceinline__ uint64_t SwizzledTile(const void* shared) {
  const uint64_t address = (SharedAddress(shared) & 0x3FFFF) >> 4;
  constexpr uint64_t kGroupBytes = 1024;  // from 8 rows to the next 8
  return address | uint64_t{1} << 16 | (kGroupBytes >> 4) << 32 | uint64_t{1} << 62;
}

// c [64, kColumns] += a [64, 16] · b [kColumns, 16]ᵀ, both in shared memory. Warp v of the group holds rows 16 v...; of them, lane l
// rows l / 4 (c[4 j], c[4 j + 1]) and l / 4 + 8 (c[4 j + 2], c[4 j + 3]), columns 8 j + 2 (l % 4) and the next.
template <typename T, int kColumns>
__device__ __forceinline__ void Wgmma(float (&c)[kColumns / 2], uint64_t a, uint64_t b);

// Lists of the operands of the instruction for 8, 16, 32, 64 … 256 columns: each is the one before and 16 more.
#define TENON_REGS_4 "%0, %1, %2, %3"
#define TENON_OUTS_4 "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
#define TENON_REGS_8 TENON_REGS_4 ", %4, %5, %6, %7"
#define TENON_OUTS_8 TENON_OUTS_4, "+f"(c[4]), "+f"(c[5]), "+f"(c[6]), "+f"(c[7])
#define TENON_REGS_16 TENON_REGS_8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define TENON_OUTS_16 TENON_OUTS_8, "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]), "+f"(c[14]), "+f"(c[15])
#define TENON_REGS_32 TENON_REGS_16 \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TENON_OUTS_32 TENON_OUTS_16, \
  "+f"(c[16]), "+f"(c[17]), "+f"(c[18]), "+f"(c[19]), "+f"(c[20]), "+f"(c[21]), "+f"(c[22]), "+f"(c[23]), \
  "+f"(c[24]), "+f"(c[25]), "+f"(c[26]), "+f"(c[27]), "+f"(c[28]), "+f"(c[29]), "+f"(c[30]), "+f"(c[31])
#define TENON_REGS_48 TENON_REGS_32 \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define TENON_OUTS_48 TENON_OUTS_32, \
  "+f"(c[32]), "+f"(c[33]), "+f"(c[34]), "+f"(c[35]), "+f"(c[36]), "+f"(c[37]), "+f"(c[38]), "+f"(c[39]), \
  "+f"(c[40]), "+f"(c[41]), "+f"(c[42]), "+f"(c[43]), "+f"(c[44]), "+f"(c[45]), "+f"(c[46]), "+f"(c[47])
#define TENON_REGS_64 TENON_REGS_48 \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TENON_OUTS_64 TENON_OUTS_48, \
  "+f"(c[48]), "+f"(c[49]), "+f"(c[50]), "+f"(c[51]), "+f"(c[52]), "+f"(c[53]), "+f"(c[54]), "+f"(c[55]), \
  "+f"(c[56]), "+f"(c[57]), "+f"(c[58]), "+f"(c[59]), "+f"(c[60]), "+f"(c[61]), "+f"(c[62]), "+f"(c[63])
#define TENON_REGS_80 TENON_REGS_64 \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define TENON_OUTS_80 TENON_OUTS_64, \
  "+f"(c[64]), "+f"(c[65]), "+f"(c[66]), "+f"(c[67]), "+f"(c[68]), "+f"(c[69]), "+f"(c[70]), "+f"(c[71]), \
  "+f"(c[72]), "+f"(c[73]), "+f"(c[74]), "+f"(c[75]), "+f"(c[76]), "+f"(c[77]), "+f"(c[78]), "+f"(c[79])
#define TENON_REGS_96 TENON_REGS_80 \
  ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define TENON_OUTS_96 TENON_OUTS_80, \
  "+f"(c[80]), "+f"(c[81]), "+f"(c[82]), "+f"(c[83]), "+f"(c[84]), "+f"(c[85]), "+f"(c[86]), "+f"(c[87]), \
  "+f"(c[88]), "+f"(c[89]), "+f"(c[90]), "+f"(c[91]), "+f"(c[92]), "+f"(c[93]), "+f"(c[94]), "+f"(c[95])
#define TENON_REGS_112 TENON_REGS_96 \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define TENON_OUTS_112 TENON_OUTS_96, \
  "+f"(c[96]), "+f"(c[97]), "+f"(c[98]), "+f"(c[99]), "+f"(c[100]), "+f"(c[101]), "+f"(c[102]), "+f"(c[103]), \
  "+f"(c[104]), "+f"(c[105]), "+f"(c[106]), "+f"(c[107]), "+f"(c[108]), "+f"(c[109]), "+f"(c[110]), "+f"(c[111])
#define TENON_REGS_128 TENON_REGS_112 \
  ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define TENON_OUTS_128 TENON_OUTS_112, \
  "+f"(c[112]), "+f"(c[113]), "+f"(c[114]), "+f"(c[115]), "+f"(c[116]), "+f"(c[117]), "+f"(c[118]), "+f"(c[119]), \
  "+f"(c[120]), "+f"(c[121]), "+f"(c[122]), "+f"(c[123]), "+f"(c[124]), "+f"(c[125]), "+f"(c[126]), "+f"(c[127])

#define TENON_WGMMA(COLUMNS, REGS, A, B, CXX_TYPE, PTX_TYPE)                                                            \
  template <>                                                                                                           \
  __device__ __forceinline__ void Wgmma<CXX_TYPE, COLUMNS>(float (&c)[REGS], uint64_t a, uint64_t b) {                    \
    asm volatile("{\n.reg .pred adds;\nsetp.ne.b32 adds, 1, 0;\n"                                                       \
                 "wgmma.mma_async.sync.aligned.m64n" #COLUMNS "k16.f32." PTX_TYPE "." PTX_TYPE " {" TENON_REGS_##REGS   \
                 "}, " A ", " B ", adds, 1, 1, 0, 0;\n}\n"                                                              \
                 : TENON_OUTS_##REGS                                                                                     \
                 : "l"(a), "l"(b));                                                                                      \
  }
#define TENON_WGMMA_SIZES(CXX_TYPE, PTX_TYPE)                  \
  TENON_WGMMA(8, 4, "%4", "%5", CXX_TYPE, PTX_TYPE)            \
  TENON_WGMMA(16, 8, "%8", "%9", CXX_TYPE, PTX_TYPE)           \
  TENON_WGMMA(32, 16, "%16", "%17", CXX_TYPE, PTX_TYPE) \
  TENON_WGMMA(64, 32, "%32", "%33", CXX_TYPE, PTX_TYPE) \
  TENON_WGMMA(96, 48, "%48", "%49", CXX_TYPE, PTX_TYPE) \
  TENON_WGMMA(128, 64, "%64", "%65", CXX_TYPE, PTX_TYPE) \
  TENON_WGMMA(160, 80, "%80", "%81", CXX_TYPE, PTX_TYPE) \
  TENON_WGMMA(192, 96, "%96", "%97", CXX_TYPE, PTX_TYPE) \
  TENON_WGMMA(224, 112, "%112", "%113", CXX_TYPE, PTX_TYPE) \
  TENON_WGMMA(256, 128, "%128", "%129", CXX_TYPE, PTX_TYPE)
TENON_WGMMA_SIZES(__nv_bfloat16, "bf16")
TENON_WGMMA_SIZES(__half, "f16")
#undef TENON_WGMMA
#undef TENON_WGMMA_SIZES

}  // namespace tenon_cuda
