/* Counts executed instructions under QEMU (TCG plugin interface, version 1; documented in docs/devel/tcg-plugins.rst).
 *
 * Arguments: symbols=FILE  lines of "address size name", hexadecimal, for the functions to tell apart;
 *            begin=ADDR    a region starts when the instruction at ADDR runs;
 *            end=ADDR      and ends when the one at this ADDR runs;
 *            classes=SET   counts by class too: a64, a32 (with functions in Thumb code) or m, see classes.h;
 *            calls=FILE    names of functions, one a line, each call of which is counted on its own with all that it calls;
 *            driver=NAME   the function that calls them one after the other, whose own instructions belong to no call;
 *            each=FILE     where to write of each instruction "address bytes state class count": its bytes as they lie in
 *                          memory, "t" in Thumb state and "a" otherwise; only with classes;
 *            out=FILE      where results are written.
 * Result lines: "call N name" for each call in order, "region N" behind those of a region, "function N name", "class name N"
 * and "total N".
 * The low bit of a function's address, where it is set, marks Thumb code.
 * Functions, classes and single instructions are counted inside regions only.
 *
 * Debian packages QEMU with the plugin interface but without its header, so what is used of it is declared here. */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classes.h"

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct qemu_info_t qemu_info_t;

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int, void *, uint64_t);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, void *), void *);

EXPORT int qemu_plugin_version = 1;

typedef struct {
  uint64_t start, size, executed, before, inside;
  bool called, thumb;
  char name[200];
} function_t;

static enum { NONE, A64, A32, M } instruction_set;

typedef struct {
  uint64_t executed, before, inside;
} class_t;

typedef struct {
  uint64_t address, executed, before, inside;
  unsigned char code[4];
  size_t size;
  bool thumb;
  int class;
} instruction_t;

static class_t classes[CLASSES];
/* By the address, in a table that is at most half full; kept on its own, since the counters must not move. */
static instruction_t **instructions;
static size_t instruction_count, instruction_places;
static FILE *each;
static function_t *functions;
static size_t function_count;
static uint64_t executed, region_start, begin_address = UINT64_MAX, end_address = UINT64_MAX;
static FILE *out;

static const function_t *driver, *call;
static bool in_region;
static uint64_t call_start;

/* Executed instructions but for the driver's. */
static uint64_t outside_driver(void) { return executed - (driver ? driver->executed : 0); }

static void call_end(void) {
  if (call) fprintf(out, "call %" PRIu64 " %s\n", outside_driver() - call_start, call->name);
  call = NULL;
}

static void call_begin(unsigned cpu, void *data) {
  (void)cpu;
  if (!in_region) return;
  call_end();
  call = data;
  call_start = outside_driver();
}

static void region_begin(unsigned cpu, void *data) {
  (void)cpu, (void)data;
  region_start = executed;
  in_region = true;
  for (size_t i = 0; i < function_count; i++) functions[i].before = functions[i].executed;
  for (size_t i = 0; i < CLASSES; i++) classes[i].before = classes[i].executed;
  for (size_t i = 0; i < instruction_places; i++)
    if (instructions[i]) instructions[i]->before = instructions[i]->executed;
}

static void region_end(unsigned cpu, void *data) {
  (void)cpu, (void)data;
  call_end();
  in_region = false;
  fprintf(out, "region %" PRIu64 "\n", executed - region_start);
  fflush(out);
  for (size_t i = 0; i < function_count; i++) functions[i].inside += functions[i].executed - functions[i].before;
  for (size_t i = 0; i < CLASSES; i++) classes[i].inside += classes[i].executed - classes[i].before;
  for (size_t i = 0; i < instruction_places; i++)
    if (instructions[i]) instructions[i]->inside += instructions[i]->executed - instructions[i]->before;
}

static instruction_t **place_of(uint64_t address) {
  size_t at = (address / 2 * 0x9E3779B97F4A7C15u) & (instruction_places - 1);
  while (instructions[at] && instructions[at]->address != address) at = (at + 1) & (instruction_places - 1);
  return &instructions[at];
}

static instruction_t *instruction_at(uint64_t address) {
  if (2 * instruction_count >= instruction_places) {
    instruction_t **const old = instructions;
    const size_t places = instruction_places;
    instruction_places = places ? 2 * places : 4096;
    instructions = calloc(instruction_places, sizeof *instructions);
    if (!instructions) abort();
    for (size_t i = 0; i < places; i++)
      if (old[i]) *place_of(old[i]->address) = old[i];
    free(old);
  }
  instruction_t **const place = place_of(address);
  if (!*place) {
    *place = calloc(1, sizeof **place);
    if (!*place) abort();
    (*place)->address = address;
    instruction_count++;
  }
  return *place;
}

/* The class of an instruction of so many bytes, as they lie in memory. */
static int class_of(const unsigned char *code, size_t size, bool thumb) {
  const uint32_t first = code[0] | (uint32_t)code[1] << 8;
  if (size == 2) return class_of_t16(first);
  const uint32_t second = code[2] | (uint32_t)code[3] << 8;
  if (thumb) return class_of_t32(first << 16 | second, instruction_set == M);
  return (instruction_set == A64 ? class_of_a64 : class_of_a32)(second << 16 | first);
}

static int compare(const void *a, const void *b) {
  const uint64_t x = ((const function_t *)a)->start, y = ((const function_t *)b)->start;
  return x < y ? -1 : x > y;
}

static function_t *find(uint64_t address) {
  size_t low = 0, high = function_count;
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (address < functions[middle].start) high = middle;
    else if (address >= functions[middle].start + functions[middle].size) low = middle + 1;
    else return &functions[middle];
  }
  return NULL;
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  const size_t count = qemu_plugin_tb_n_insns(block);
  for (size_t i = 0; i < count; i++) {
    struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
    const uint64_t address = qemu_plugin_insn_vaddr(insn);
    if (address == end_address) qemu_plugin_register_vcpu_insn_exec_cb(insn, region_end, 0, NULL);
    qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &executed, 1);
    function_t *function = find(address);
    if (instruction_set != NONE) {
      const unsigned char *const code = qemu_plugin_insn_data(insn);
      size_t size = qemu_plugin_insn_size(insn);
      const bool thumb = instruction_set == M || (instruction_set == A32 && (size == 2 || (function && function->thumb)));
      /* Before the end of a page QEMU gives what it has read ahead, too. */
      size = thumb && code[1] >> 3 < 29 ? 2 : 4;
      const int class = class_of(code, size, thumb);
      qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &classes[class].executed, 1);
      if (each) {
        instruction_t *const instruction = instruction_at(address);
        memcpy(instruction->code, code, size);
        instruction->size = size, instruction->thumb = thumb, instruction->class = class;
        qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &instruction->executed, 1);
      }
    }
    if (function) qemu_plugin_register_vcpu_insn_exec_inline(insn, 0, &function->executed, 1);
    if (function && function->called && address == function->start)
      qemu_plugin_register_vcpu_insn_exec_cb(insn, call_begin, 0, function);
    if (address == begin_address) qemu_plugin_register_vcpu_insn_exec_cb(insn, region_begin, 0, NULL);
  }
}

static void finish(qemu_plugin_id_t id, void *data) {
  (void)id, (void)data;
  for (size_t i = 0; i < function_count; i++)
    if (functions[i].inside) fprintf(out, "function %" PRIu64 " %s\n", functions[i].inside, functions[i].name);
  for (size_t i = 0; i < CLASSES; i++)
    if (instruction_set != NONE) fprintf(out, "class %s %" PRIu64 "\n", class_names[i], classes[i].inside);
  for (size_t i = 0; i < instruction_places; i++) {
    const instruction_t *const instruction = instructions[i];
    if (!instruction || !instruction->inside) continue;
    fprintf(each, "%" PRIx64 " ", instruction->address);
    for (size_t j = 0; j < instruction->size; j++) fprintf(each, "%02x", instruction->code[j]);
    fprintf(each, " %c %s %" PRIu64 "\n", instruction->thumb ? 't' : 'a', class_names[instruction->class], instruction->inside);
  }
  if (each) fclose(each);
  fprintf(out, "total %" PRIu64 "\n", executed);
  fclose(out);
}

static int read_symbols(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) return -1;
  size_t capacity = 0;
  function_t f = {0};
  while (fscanf(file, "%" SCNx64 " %" SCNx64 " %199s", &f.start, &f.size, f.name) == 3) {
    if (function_count == capacity) {
      capacity = capacity ? 2 * capacity : 256;
      functions = realloc(functions, capacity * sizeof *functions);
      if (!functions) abort();
    }
    f.thumb = f.start & 1;
    f.start &= ~(uint64_t)1;
    functions[function_count++] = f;
  }
  fclose(file);
  qsort(functions, function_count, sizeof *functions, compare);
  return 0;
}

static function_t *named(const char *name) {
  for (size_t i = 0; i < function_count; i++)
    if (!strcmp(functions[i].name, name)) return &functions[i];
  return NULL;
}

static int read_calls(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) return -1;
  char name[200];
  while (fscanf(file, "%199s", name) == 1) {
    function_t *function = named(name);
    if (function) function->called = true;
  }
  fclose(file);
  return 0;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv) {
  (void)info;
  out = stderr;
  for (int i = 0; i < argc; i++) {
    if (!strncmp(argv[i], "symbols=", 8) && read_symbols(argv[i] + 8)) return -1;
    if (!strncmp(argv[i], "begin=", 6)) begin_address = strtoull(argv[i] + 6, NULL, 16);
    if (!strncmp(argv[i], "end=", 4)) end_address = strtoull(argv[i] + 4, NULL, 16);
    if (!strncmp(argv[i], "calls=", 6) && read_calls(argv[i] + 6)) return -1;
    if (!strncmp(argv[i], "driver=", 7)) driver = named(argv[i] + 7);
    if (!strcmp(argv[i], "classes=a64")) instruction_set = A64;
    if (!strcmp(argv[i], "classes=a32")) instruction_set = A32;
    if (!strcmp(argv[i], "classes=m")) instruction_set = M;
    if (!strncmp(argv[i], "each=", 5) && !(each = fopen(argv[i] + 5, "w"))) return -1;
    if (!strncmp(argv[i], "out=", 4) && !(out = fopen(argv[i] + 4, "w"))) return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
