// out (M, N) = x (M, K) W^T for few tokens: W is read once, in 4 bit, in the order of packing.py.
//
// A group of blocks (a cluster) shares ROWS rows of W, each block a part of K; within a block each warp has 16 rows.
// Weights and tokens come by cp.async, STAGES groups of 128 columns ahead. A word of W holds four neighbouring weights
// of two blocks of scales, which is what one lane gives to a product of 16 x 16 by 8 x 16: weights go from the table to
// the tensor cores without leaving the lane's registers. The products of a block of scales are summed in float32 and
// multiplied by the scale there. Then the parts of K are added through the cluster's shared memory, in order.
//
// Set by the caller: TILES (of eight tokens; 8 * TILES >= M), BF16 (else fp16), and the table of values, byte by byte,
// LOW0 to LOW3 and HIGH0 to HIGH3. K is a multiple of 128, N of 16; every pointer is aligned to 16 bytes.

typedef unsigned int uint;
typedef unsigned char byte;

#define WARPS 16
#define ROWS (16 * WARPS)
#define THREADS (32 * WARPS)
#define STAGES 4
#define TOKENS (8 * TILES)
#define TOKEN_BYTES (256 + 16)  // 128 columns; 16 bytes apart, eight lanes read from eight different banks
#define WORDS_AT 0
#define TOKENS_AT (ROWS * 64)
#define SCALES_AT (TOKENS_AT + TOKENS * TOKEN_BYTES)
#define STAGE_BYTES (SCALES_AT + 2 * ROWS)
#define TABLE_AT (STAGES * STAGE_BYTES)
#define SUM_STRIDE (ROWS + 4)  // floats

#ifdef BF16
#define TYPE "bf16"
#else
#define TYPE "f16"
#endif

__device__ __forceinline__ uint shared_address(const void* place) {
  return (uint)__cvta_generic_to_shared(place);
}

// 16 bytes from global to shared memory, or zeros.
__device__ __forceinline__ void fetch(uint to, const void* from, bool real) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(real ? 16 : 0));
}

__device__ __forceinline__ uint permute(uint a, uint b, uint selectors) {
  uint out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selectors));
  return out;
}

// Four codes in the lower half of a word -> their values: the first two, the last two.
__device__ __forceinline__ uint2 look_up(uint codes) {
  uint lower = codes & 0x7777u, fourth = ((codes & 0x8888u) >> 1) | 0x3210u;
  uint low = permute(permute(LOW0, LOW1, lower), permute(LOW2, LOW3, lower), fourth);
  uint high = permute(permute(HIGH0, HIGH1, lower), permute(HIGH2, HIGH3, lower), fourth);
  return make_uint2(permute(low, high, 0x5140), permute(low, high, 0x7362));
}

__device__ __forceinline__ void multiply(float* sums, uint2 upper, uint2 lower, uint first, uint second) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(upper.x), "r"(lower.x), "r"(upper.y), "r"(lower.y), "r"(first), "r"(second));
}

__device__ __forceinline__ uint pair(float first, float second) {
  uint out;
  asm("cvt.rn." TYPE "x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
}

__device__ __forceinline__ void meet() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
few_tokens(const byte* __restrict__ x, const byte* __restrict__ codes, const byte* __restrict__ scale_codes,
           const float* __restrict__ scale_scales, const float* __restrict__ scale_values,
           const float* __restrict__ offset, byte* __restrict__ out, int M, int N, int K, int stride) {
  extern __shared__ __align__(16) byte memory[];
  uint part, parts;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(part));
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(parts));
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, upper = lane / 4, quarter = lane % 4;
  const int tile = blockIdx.y * ROWS, groups = K / 128;
  const int each = (groups + parts - 1) / parts, begin = part * each;
  const int count = max(0, min(begin + each, groups) - begin);

  // The lane's two rows; those behind the last are read as the last, and not written.
  const int row = min(tile + 16 * warp + upper, N - 1), other = min(tile + 16 * warp + upper + 8, N - 1);
  const byte* words = codes + (size_t)row * (K / 2) + 16 * quarter;
  const byte* other_words = codes + (size_t)other * (K / 2) + 16 * quarter;
  const uint own = shared_address(memory) + WORDS_AT + 32 * 16 * (2 * warp) + 16 * lane;
  const float shift = offset[row], other_shift = offset[other];
  float* table = (float*)(memory + TABLE_AT);
  for (int i = thread; i < 256; i += THREADS) table[i] = scale_values[i];

  auto fetch_group = [&](int number) {
    if (number < count) {
      const int group = begin + number;
      const uint stage = (number % STAGES) * STAGE_BYTES;
      fetch(own + stage, words + 64 * group, true);
      fetch(own + stage + 512, other_words + 64 * group, true);
      for (int i = thread; i < 16 * TOKENS; i += THREADS) {
        const int token = i / 16, piece = i % 16;
        const bool real = token < M;
        fetch(shared_address(memory) + stage + TOKENS_AT + token * TOKEN_BYTES + 16 * piece,
              x + (size_t)(real ? token : 0) * 2 * K + 256 * group + 16 * piece, real);
      }
      if (thread < 2 * ROWS / 16) {
        const int block = thread / (ROWS / 16), piece = thread % (ROWS / 16);
        const bool real = tile + 16 * piece < N;
        fetch(shared_address(memory) + stage + SCALES_AT + block * ROWS + 16 * piece,
              scale_codes + (size_t)(2 * group + block) * stride + (real ? tile + 16 * piece : 0), real);
      }
    }
    asm volatile("cp.async.commit_group;");
  };
  auto shared_scale = [&](int at, int group, int block) {
    return scale_scales[((size_t)at * (K / 64) + 2 * min(group, groups - 1) + block) / 256];
  };

  float sums[TILES][4] = {};
  for (int number = 0; number < STAGES - 1; ++number) fetch_group(number);
  float shares[2][2];
  for (int block = 0; block < 2; ++block) {
    shares[block][0] = shared_scale(row, begin, block);
    shares[block][1] = shared_scale(other, begin, block);
  }

  for (int number = 0; number < count; ++number) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
    __syncthreads();  // what all threads fetched is there, and all have done with the stage that is fetched to next
    fetch_group(number + STAGES - 1);
    const byte* stage = memory + (number % STAGES) * STAGE_BYTES;
    const uint4 mine = *(const uint4*)(stage + WORDS_AT + 32 * 16 * (2 * warp) + 16 * lane);
    const uint4 others = *(const uint4*)(stage + WORDS_AT + 32 * 16 * (2 * warp + 1) + 16 * lane);
    const uint a[4] = {mine.x, mine.y, mine.z, mine.w}, b[4] = {others.x, others.y, others.z, others.w};
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      const byte* scales = stage + SCALES_AT + block * ROWS + 16 * warp + upper;
      // Two roundings, as where the weights are decoded.
      const float scale = __fadd_rn(__fmul_rn(table[scales[0]], shares[block][0]), shift);
      const float other_scale = __fadd_rn(__fmul_rn(table[scales[8]], shares[block][1]), other_shift);
      shares[block][0] = shared_scale(row, begin + number + 1, block);
      shares[block][1] = shared_scale(other, begin + number + 1, block);
      float part_sums[TILES][4] = {};
#pragma unroll
      for (int two = 0; two < 2; ++two) {
        const int step = 2 * two;
        const uint2 a0 = look_up(a[step] >> (16 * block)), b0 = look_up(b[step] >> (16 * block));
        const uint2 a1 = look_up(a[step + 1] >> (16 * block)), b1 = look_up(b[step + 1] >> (16 * block));
        const byte* tokens = stage + TOKENS_AT + upper * TOKEN_BYTES + 128 * block + 32 * quarter + 16 * two;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
          const uint4 given = *(const uint4*)(tokens + 8 * i * TOKEN_BYTES);
          multiply(part_sums[i], a0, b0, given.x, given.y);
          multiply(part_sums[i], a1, b1, given.z, given.w);
        }
      }
#pragma unroll
      for (int i = 0; i < TILES; ++i) {
        sums[i][0] += part_sums[i][0] * scale;
        sums[i][1] += part_sums[i][1] * scale;
        sums[i][2] += part_sums[i][2] * other_scale;
        sums[i][3] += part_sums[i][3] * other_scale;
      }
    }
  }

  // The parts of K: this block's sums in its own memory, token by token, then each block adds some tokens of all.
  asm volatile("cp.async.wait_all;");
  __syncthreads();
  float* own_sums = (float*)memory;
#pragma unroll
  for (int i = 0; i < TILES; ++i) {
    float* place = own_sums + (8 * i + 2 * quarter) * SUM_STRIDE + 16 * warp + upper;
    place[0] = sums[i][0];
    place[SUM_STRIDE] = sums[i][1];
    place[8] = sums[i][2];
    place[SUM_STRIDE + 8] = sums[i][3];
  }
  meet();
  for (int item = thread;; item += THREADS) {
    const int token = part + parts * (item / (ROWS / 4)), column = 4 * (item % (ROWS / 4));
    if (token >= M) break;
    if (tile + column >= N) continue;
    float4 total = make_float4(0, 0, 0, 0);
    for (uint from = 0; from < parts; ++from) {
      uint place;
      float4 one;
      asm("mapa.shared::cluster.u32 %0, %1, %2;"
          : "=r"(place)
          : "r"(shared_address(own_sums + token * SUM_STRIDE + column)), "r"(from));
      asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                   : "=f"(one.x), "=f"(one.y), "=f"(one.z), "=f"(one.w)
                   : "r"(place)
                   : "memory");
      total.x += one.x, total.y += one.y, total.z += one.z, total.w += one.w;
    }
    *(uint2*)(out + ((size_t)token * N + tile + column) * 2) = make_uint2(pair(total.x, total.y), pair(total.z, total.w));
  }
  meet();  // nobody leaves while its memory is being read
}
