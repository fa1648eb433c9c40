/* The class of an instruction by its encoding: A64 (Arm DDI 0487, chapter C4), A32 and T32 (DDI 0406C, chapters A5 and A6;
 * DDI 0403E, chapter A5), with what Armv8.1-M has besides (DDI 0553, chapter C2).
 *
 * What moves between the vector or floating-point registers and the general ones counts as vector; what loads the program
 * counter, such as a return by POP, as a load; prefetches, barriers, hints and system registers as other. */
#ifndef TVMCOMPRESS_CLASSES_H
#define TVMCOMPRESS_CLASSES_H

#include <stdbool.h>
#include <stdint.h>

enum { LOAD, STORE, BRANCH, INTEGER, VECTOR, OTHER, CLASSES };
static const char *const class_names[CLASSES] = {"load", "store", "branch", "integer", "vector", "other"};

/* Bits `high` to `low`. */
static inline uint32_t bits(uint32_t word, int high, int low) { return (word >> low) & ((2u << (high - low)) - 1); }

static int class_of_a64(uint32_t word) {
  const uint32_t group = bits(word, 28, 25);
  if ((group & 5) == 4) {
    const bool literal = (word & 0x3B000000u) == 0x18000000u, single = bits(word, 29, 27) == 7;
    const bool vector = bits(word, 26, 26);
    const uint32_t opc = bits(word, 23, 22);
    if (literal) return LOAD;
    if (single && vector) return opc & 1 ? LOAD : STORE;
    if (single) return opc == 0 ? STORE : LOAD;
    return opc & 1 ? LOAD : STORE;
  }
  if ((group & 14) == 10) return BRANCH;
  if ((group & 14) == 8 || (group & 7) == 5) return INTEGER;
  return (group & 7) == 7 ? VECTOR : OTHER;
}

/* Memory accesses of the extension registers, and moves of two general ones: bits 27 to 25 are 110. */
static int class_of_extension_access(uint32_t word) {
  const bool moves_two = bits(word, 24, 23) == 0 && !bits(word, 21, 21);
  if (moves_two) return VECTOR;
  return bits(word, 20, 20) ? LOAD : STORE;
}

/* The floating-point and vector unit is coprocessors 9 to 11, with bit 28 set in T32, or all bits of the condition in A32, 8 to 13;
 * in Armv8-M it is 8 to 15. */
static bool is_vector_unit(uint32_t word, bool second_space, bool microcontroller) {
  const uint32_t coprocessor = bits(word, 11, 8);
  if (microcontroller) return coprocessor >= 8;
  return second_space ? coprocessor >= 8 && coprocessor < 14 : coprocessor >= 9 && coprocessor < 12;
}

static int class_of_a32(uint32_t word) {
  const uint32_t kind = bits(word, 27, 25);
  if (bits(word, 31, 28) == 15) {
    if (kind == 1) return VECTOR;
    if (bits(word, 27, 24) == 4 && !bits(word, 20, 20)) return bits(word, 21, 21) ? LOAD : STORE;
    if (kind == 5) return BRANCH;
    if (kind == 4) return bits(word, 20, 20) ? LOAD : STORE;
    if ((kind == 6 || bits(word, 27, 24) == 14) && is_vector_unit(word, true, false)) return VECTOR;
    return OTHER;
  }
  switch (kind) {
    case 0:
    case 1: {
      if (kind == 0 && bits(word, 7, 7) && bits(word, 4, 4)) {
        if (bits(word, 6, 5) == 0 && !bits(word, 24, 24)) return INTEGER;
        if (bits(word, 6, 5) == 0 || bits(word, 20, 20)) return bits(word, 20, 20) ? LOAD : STORE;
        return bits(word, 6, 5) == 2 ? LOAD : STORE;
      }
      if (bits(word, 24, 23) == 2 && !bits(word, 20, 20)) {
        if (kind == 1) return bits(word, 21, 21) ? OTHER : INTEGER;
        const uint32_t second = bits(word, 7, 4);
        if (second == 0 || second == 7) return OTHER;
        if (bits(word, 22, 21) == 1 && second >= 1 && second <= 3) return BRANCH;
        return INTEGER;
      }
      return bits(word, 15, 12) == 15 && bits(word, 24, 23) != 2 ? BRANCH : INTEGER;
    }
    case 2: return bits(word, 20, 20) ? LOAD : STORE;
    case 3:
      if (!bits(word, 4, 4)) return bits(word, 20, 20) ? LOAD : STORE;
      return bits(word, 24, 20) == 31 && bits(word, 7, 5) == 7 ? OTHER : INTEGER;
    case 4: return bits(word, 20, 20) ? LOAD : STORE;
    case 5: return BRANCH;
    default:
      if (bits(word, 27, 24) == 15 || !is_vector_unit(word, false, false)) return OTHER;
      return kind == 6 ? class_of_extension_access(word) : VECTOR;
  }
}

static int class_of_t16(uint32_t half) {
  switch (bits(half, 15, 12)) {
    case 4:
      if (bits(half, 11, 11)) return LOAD;
      if (!bits(half, 10, 10)) return INTEGER;
      if (bits(half, 9, 8) == 3) return BRANCH;
      return bits(half, 9, 8) != 1 && bits(half, 7, 7) && bits(half, 2, 0) == 7 ? BRANCH : INTEGER;
    case 5: return bits(half, 11, 9) >= 3 ? LOAD : STORE;
    case 6:
    case 7:
    case 8:
    case 9:
    case 12: return bits(half, 11, 11) ? LOAD : STORE;
    case 11: {
      const uint32_t kind = bits(half, 11, 8);
      if ((kind & 6) == 4) return kind & 8 ? LOAD : STORE;
      if ((kind & 5) == 1) return BRANCH;
      return kind == 0 || kind == 2 || kind == 10 ? INTEGER : OTHER;
    }
    case 13: return bits(half, 11, 9) == 7 ? OTHER : BRANCH;
    case 14: return BRANCH;
    default: return INTEGER;
  }
}
/* Coprocessor space of T32: `word` has the first halfword on top. */
static int class_of_t32_coprocessor(uint32_t word, bool microcontroller) {
  if (bits(word, 27, 24) == 15) return VECTOR;
  if (!is_vector_unit(word, bits(word, 28, 28), microcontroller)) return OTHER;
  if (bits(word, 27, 25) != 6) return VECTOR;
  /* With bit 28 set there are products of A32's kind, and structures and gathering loads of Armv8.1-M. */
  if (bits(word, 28, 28) && bits(word, 11, 9) != 7) return VECTOR;
  return class_of_extension_access(word);
}

static int class_of_t32(uint32_t word, bool microcontroller) {
  const uint32_t second = bits(word, 26, 20);
  if (bits(word, 28, 27) != 2 && bits(word, 26, 26)) return class_of_t32_coprocessor(word, microcontroller);
  switch (bits(word, 28, 27)) {
    case 1:
      if (second & 32) return INTEGER;
      if ((second & 4) && bits(word, 24, 20) == 13 && bits(word, 7, 5) == 0) return BRANCH;
      return bits(word, 20, 20) ? LOAD : STORE;
    case 2:
      if (!bits(word, 15, 15)) return INTEGER;
      /* VCTP, among the loops of Armv8.1-M. */
      if (microcontroller && bits(word, 15, 11) == 29) return VECTOR;
      if (bits(word, 14, 14) || bits(word, 12, 12)) return BRANCH;
      return bits(word, 25, 23) == 7 ? OTHER : BRANCH;
    default:
      if (second & 32) return INTEGER;
      /* Structures of vectors; prefetches are loads of narrow values to the program counter. */
      if ((second & 17) == 16) return second & 2 ? LOAD : STORE;
      if (!(second & 1)) return STORE;
      if ((second & 6) == 6) return OTHER;
      return bits(word, 15, 12) == 15 && (second & 6) != 4 ? OTHER : LOAD;
  }
}
#endif
