// W (N, K) in 16 bit, from 4 bit in the order of packing.py: for many tokens, whose product a library makes.
//
// A warp decodes 16 rows of one pair of blocks; four rows at once, eight lanes a row, sixteen weights a lane: the stores of a
// warp are whole lines. A weight is value * scale in float32, then rounded, exactly as bitsandbytes decodes; as there are
// sixteen values and 64 weights of a scale, a block's sixteen products are made once, two by each lane, and looked up byte by
// byte: `prmt` picks four bytes of eight by four selectors, and four codes that lie side by side are four selectors.
//
// Set by the caller (decoding.py): WARPS of a block, which stand side by side along K; BF16 (else fp16); and the sixteen
// values, VALUES. K is a multiple of 128; codes are aligned to 8 bytes, out to 16.

typedef unsigned int uint;
typedef unsigned char byte;

#define ALL 0xffffffffu

__device__ __forceinline__ uint permute(uint a, uint b, uint selectors) {
  uint out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selectors));
  return out;
}

// Two numbers rounded to 16 bit, the first in the lower half.
__device__ __forceinline__ uint rounded(float first, float second) {
  uint out;
#if defined(BF16)
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
#elif __CUDA_ARCH__ >= 800
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
#else
  asm("{ .reg .f16 a, b; cvt.rn.f16.f32 a, %1; cvt.rn.f16.f32 b, %2; mov.b32 %0, {a, b}; }"
      : "=r"(out) : "f"(first), "f"(second));
#endif
  return out;
}

// Four codes' products, by the codes' lower three bits and by what picks by the fourth; low and high bytes apart.
__device__ __forceinline__ uint2 look_up(uint4 low, uint4 high, uint lower, uint fourth) {
  const uint l = permute(permute(low.x, low.y, lower), permute(low.z, low.w, lower), fourth);
  const uint h = permute(permute(high.x, high.y, lower), permute(high.z, high.w, lower), fourth);
  return make_uint2(permute(l, h, 0x5140), permute(l, h, 0x7362));
}

__device__ const __align__(8) float values[16] = {VALUES};  // read two by two

extern "C" __global__ void __launch_bounds__(32 * WARPS)
decode(const byte* __restrict__ codes, const byte* __restrict__ scale_codes, const float* __restrict__ scale_scales,
       const float* __restrict__ scale_values, const float* __restrict__ offset, byte* __restrict__ out, int N, int K,
       int stride) {
  __shared__ __align__(16) uint tables[WARPS][2][2][4][8];  // of one step while another's is read
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = blockIdx.x * WARPS + warp;
  if (group >= K / 128) return;  // no barrier of the whole block follows
  const int sub = lane / 8, eighth = lane % 8;
  const float2 two_values = *(const float2*)(values + 2 * eighth);
  // Of two neighbouring lanes' four products the even lane takes the low bytes, the odd one the high ones.
  const uint mine = lane % 2 ? 0x3175 : 0x6420;
  const int place = 4 * (lane % 2) + eighth / 2;
  const int tile = blockIdx.y * 16;

  // Rows behind the last are read as the last, and not written.
  uint2 words[4];
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    const int row = min(tile + 4 * step + sub, N - 1);
    words[step] = __ldcs((const uint2*)(codes + (size_t)row * (K / 2) + 64 * group + 8 * eighth));
  }
  // Each lane makes one of 32 scales: lanes 0 to 15 those of the rows' first blocks, the others of the second.
  const int scaled = min(tile + lane % 16, N - 1), block = 2 * group + lane / 16;
  const float shared = scale_scales[((size_t)scaled * (K / 64) + block) / 256];
  const float scale =
      __fadd_rn(__fmul_rn(scale_values[scale_codes[(size_t)block * stride + scaled]], shared), offset[scaled]);

#pragma unroll
  for (int step = 0; step < 4; ++step) {
    uint(*table)[4][8] = tables[warp][step % 2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float s = __shfl_sync(ALL, scale, 4 * step + sub + 16 * i);
      const uint two = rounded(__fmul_rn(two_values.x, s), __fmul_rn(two_values.y, s));
      table[i][sub][place] = permute(two, __shfl_xor_sync(ALL, two, 1), mine);
    }
    __syncwarp();
    const uint2 word = words[step];
    const uint2 lower = make_uint2(word.x & 0x77777777u, word.y & 0x77777777u);
    const uint2 fourth = make_uint2((word.x >> 1 & 0x44444444u) | 0x32103210u, (word.y >> 1 & 0x44444444u) | 0x32103210u);
    const int row = tile + 4 * step + sub;
    byte* to = out + ((size_t)row * K + 128 * group + 8 * eighth) * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 low = *(const uint4*)&table[i][sub][0], high = *(const uint4*)&table[i][sub][4];
      const uint2 a = look_up(low, high, lower.x >> 16 * i, fourth.x >> 16 * i);
      const uint2 b = look_up(low, high, lower.y >> 16 * i, fourth.y >> 16 * i);
      if (row < N) *(uint4*)(to + 128 * i) = make_uint4(a.x, a.y, b.x, b.y);
    }
  }
}
