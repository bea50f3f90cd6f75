// out (M, N) = x (M, K) W^T for few tokens: W is read once, in 4 bit, in the order of packing.py.
//
// A cluster of blocks shares ROWS rows of W, each block a part of K; within a block each warp has WARP_ROWS rows.
// Weights and tokens come by cp.async, STAGES groups of 128 columns ahead. A word of W holds four neighbouring weights
// of two blocks of scales, which is what one lane gives to a product of 16 x 16 by 8 x 16: from the lane's registers,
// two weights at a time, by a table of all pairs that each lane has for itself, in its own bank. The products of a block
// of scales are summed in float32 and multiplied by the scale there. Then the parts of K are added through the cluster's
// shared memory, in order.
//
// Set by the caller (few_tokens.py): TILES of eight tokens, at least M / 8; ROW_TILES of 16 rows for each warp, ROWS for a
// block; STAGES; BLOCKS on a processor at once; BF16 (else fp16); and the sixteen values, byte by byte, LOW0 to LOW3 and
// HIGH0 to HIGH3. K is a multiple of 128, N of 16; every pointer is aligned to 16 bytes.

typedef unsigned int uint;
typedef unsigned char byte;

#define WARP_ROWS (16 * ROW_TILES)
#define THREADS (32 * ROWS / WARP_ROWS)
#define TOKENS (8 * TILES)
#define TOKEN_BYTES (256 + 16)  // 128 columns; 16 bytes apart, eight lanes read from eight different banks

#define PAIRS_AT 0
#define SCALE_VALUES_AT (256 * 128)
#define STAGES_AT (SCALE_VALUES_AT + 4 * 256)
#define TOKENS_AT (64 * ROWS)
#define SCALES_AT (TOKENS_AT + TOKENS * TOKEN_BYTES)
#define STAGE_BYTES (SCALES_AT + 2 * ROWS)
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

// Two codes -> their values.
__device__ __forceinline__ uint look_up(uint codes) {
  const uint lower = codes & 0x77u, fourth = ((codes & 0x88u) >> 1) | 0x10u;
  const uint low = permute(permute(LOW0, LOW1, lower), permute(LOW2, LOW3, lower), fourth);
  const uint high = permute(permute(HIGH0, HIGH1, lower), permute(HIGH2, HIGH3, lower), fourth);
  return permute(low, high, 0x5140);
}

__device__ __forceinline__ void multiply(float* sums, const uint* weights, uint first, uint second) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "r"(first), "r"(second));
}

__device__ __forceinline__ uint pair(float first, float second) {
  uint out;
  asm("cvt.rn." TYPE "x2.f32 %0, %1, %2;" : "=r"(out) : "f"(second), "f"(first));
  return out;
}

__device__ __forceinline__ void meet() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
few_tokens(const byte* __restrict__ x, const byte* __restrict__ codes, const byte* __restrict__ scale_codes,
           const float* __restrict__ scale_scales, const float* __restrict__ scale_values,
           const float* __restrict__ offset, byte* __restrict__ out, int M, int N, int K, int stride) {
  extern __shared__ __align__(128) byte memory[];
  uint part, parts;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(part));
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(parts));
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, upper = lane / 4, quarter = lane % 4;
  const int tile = blockIdx.y * ROWS, groups = K / 128;
  const int each = (groups + parts - 1) / parts, begin = part * each;
  const int count = max(0, min(begin + each, groups) - begin);
  const uint base = shared_address(memory);

  // The lane's rows, every eighth of the warp's; those behind the last are read as the last, and not written.
  int rows[2 * ROW_TILES], scale_number[2 * ROW_TILES];
  const byte* words[2 * ROW_TILES];
  float shift[2 * ROW_TILES];
#pragma unroll
  for (int i = 0; i < 2 * ROW_TILES; ++i) {
    rows[i] = min(tile + WARP_ROWS * warp + 8 * i + upper, N - 1);
    words[i] = codes + (size_t)rows[i] * (K / 2) + 64 * begin + 16 * quarter;
    scale_number[i] = rows[i] * (K / 64) + 2 * begin;
    shift[i] = offset[rows[i]];
  }
  const uint own = base + STAGES_AT + 512 * (2 * ROW_TILES * warp) + 16 * lane;
  // Sixteen threads fetch a token's 128 columns; a part of a scale's row is fetched by one thread.
  const int first_token = thread / 16, piece = thread % 16;
  const byte* tokens = x + (size_t)first_token * 2 * K + 256 * begin + 16 * piece;
  const size_t token_step = (size_t)(THREADS / 16) * 2 * K;
  const uint own_tokens = base + STAGES_AT + TOKENS_AT + first_token * TOKEN_BYTES + 16 * piece;
  const int scale_block = thread / (ROWS / 16), scale_piece = 16 * (thread % (ROWS / 16));
  const bool scale_real = tile + scale_piece < N;
  const byte* scales = scale_codes + (size_t)(2 * begin + scale_block) * stride + (scale_real ? tile + scale_piece : 0);
  const uint own_scales = base + STAGES_AT + SCALES_AT + scale_block * ROWS + scale_piece;

  auto fetch_group = [&](int number) {
    if (number < count) {
      const uint stage = (number % STAGES) * STAGE_BYTES;
#pragma unroll
      for (int i = 0; i < 2 * ROW_TILES; ++i) {
        fetch(own + stage + 512 * i, words[i], true);
        words[i] += 64;
      }
#pragma unroll
      for (int i = 0; i * (THREADS / 16) < TOKENS; ++i) {
        const int token = first_token + i * (THREADS / 16);
        if (token < TOKENS)
          fetch(own_tokens + stage + i * (THREADS / 16) * TOKEN_BYTES, token < M ? tokens + i * token_step : x, token < M);
      }
      tokens += 256;
      if (thread < 2 * ROWS / 16) fetch(own_scales + stage, scales, scale_real);
      scales += 2 * (size_t)stride;
    }
    asm volatile("cp.async.commit_group;");
  };

  for (int number = 0; number < STAGES - 1; ++number) fetch_group(number);

  // Meanwhile the table of pairs: 256 of them, each once in every bank. Eight lanes write to different banks.
  float* table = (float*)(memory + SCALE_VALUES_AT);
  for (int i = thread; i < 256; i += THREADS) {
    table[i] = scale_values[i];
    const uint two = look_up(i);
#pragma unroll
    for (int j = 0; j < 8; ++j)
      *(uint4*)(memory + PAIRS_AT + 128 * i + 16 * ((j + i) % 8)) = make_uint4(two, two, two, two);
  }
  const byte* pairs = memory + PAIRS_AT;
  const uint bank = 4 * lane;

  float sums[ROW_TILES][TILES][4] = {};
  float shares[2][2 * ROW_TILES];
#pragma unroll
  for (int block = 0; block < 2; ++block)
#pragma unroll
    for (int i = 0; i < 2 * ROW_TILES; ++i) shares[block][i] = count ? scale_scales[(scale_number[i] + block) / 256] : 0.0f;

  for (int number = 0; number < count; ++number) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2));
    __syncthreads();  // what all threads fetched is there, and all have done with the stage that is fetched to next
    fetch_group(number + STAGES - 1);
    const byte* stage = memory + STAGES_AT + (number % STAGES) * STAGE_BYTES;
    uint word[2 * ROW_TILES][4];
#pragma unroll
    for (int i = 0; i < 2 * ROW_TILES; ++i)
      *(uint4*)word[i] = *(const uint4*)(stage + 512 * (2 * ROW_TILES * warp + i) + 16 * lane);
    const bool more = number + 1 < count;
#pragma unroll
    for (int block = 0; block < 2; ++block) {
      float scale[2 * ROW_TILES];
#pragma unroll
      for (int i = 0; i < 2 * ROW_TILES; ++i) {
        const byte code = stage[SCALES_AT + block * ROWS + WARP_ROWS * warp + 8 * i + upper];
        // Two roundings, as where the weights are decoded.
        scale[i] = __fadd_rn(__fmul_rn(table[code], shares[block][i]), shift[i]);
        if (more) shares[block][i] = scale_scales[(scale_number[i] + 2 * (number + 1) + block) / 256];
      }
      float products[ROW_TILES][TILES][4] = {};
#pragma unroll
      for (int two = 0; two < 2; ++two) {
        uint weights[ROW_TILES][2][4];
#pragma unroll
        for (int i = 0; i < 2 * ROW_TILES; ++i)
#pragma unroll
          for (int step = 0; step < 2; ++step) {
            const uint given = word[i][2 * two + step];
            // 128 bytes for each pair of codes, which is a byte of the word.
            const uint first = (block ? given >> 9 : given << 7) & 0x7f80u, second = (block ? given >> 17 : given >> 1) & 0x7f80u;
            weights[i / 2][step][i % 2] = *(const uint*)(pairs + (first | bank));
            weights[i / 2][step][i % 2 + 2] = *(const uint*)(pairs + (second | bank));
          }
        const byte* place = stage + TOKENS_AT + upper * TOKEN_BYTES + 128 * block + 32 * quarter + 16 * two;
#pragma unroll
        for (int i = 0; i < TILES; ++i) {
          const uint4 given = *(const uint4*)(place + 8 * i * TOKEN_BYTES);
#pragma unroll
          for (int j = 0; j < ROW_TILES; ++j) {
            multiply(products[j][i], weights[j][0], given.x, given.y);
            multiply(products[j][i], weights[j][1], given.z, given.w);
          }
        }
      }
#pragma unroll
      for (int j = 0; j < ROW_TILES; ++j)
#pragma unroll
        for (int i = 0; i < TILES; ++i)
#pragma unroll
          for (int k = 0; k < 4; ++k) sums[j][i][k] += products[j][i][k] * scale[2 * j + k / 2];
    }
  }

  // The parts of K: this block's sums in its own memory, token by token, then each block adds some tokens of all.
  asm volatile("cp.async.wait_all;");
  __syncthreads();
  float* own_sums = (float*)(memory + STAGES_AT);
#pragma unroll
  for (int j = 0; j < ROW_TILES; ++j)
#pragma unroll
    for (int i = 0; i < TILES; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k)
        own_sums[(8 * i + 2 * quarter + k % 2) * SUM_STRIDE + WARP_ROWS * warp + 16 * j + 8 * (k / 2) + upper] =
            sums[j][i][k];
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
