/* What a machine's own counters and sensors say of the energy that it takes. Read under a folder that stands for /sys.
 *
 * Counters of the processor's packages (RAPL: class/powercap/intel-rapl:N) come first, then a counter of a sensor chip
 * (class/hwmon/hwmonN/energy1_input), then the power that a chip reports (power1_input, or millivolts and milliamperes of
 * in1_input and curr1_input), which a thread adds up. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tvm/ffi/c_api.h>

#define PLACES 16
#define WORDS 512
#define PERIOD_NS 2000000 /* of reading a power sensor */

enum kind { NOTHING, PACKAGES, COUNTER, POWER, VOLTS };

static struct {
  enum kind kind;
  char root[WORDS], sensor[WORDS];
  int place;                      /* of a sensor chip */
  double counted[PLACES];         /* microjoules of each package at the beginning */
  double begun, seconds, joules, power, at; /* seconds; joules so far; watts at the last reading, and when that was */
  volatile int running;
  pthread_t thread;
} meter;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

/* The number in a file below the root, or -1. */
static double number(const char *format, int place, const char *name) {
  char below[WORDS], path[2 * WORDS];
  double value = -1;
  snprintf(below, sizeof below, format, place, name);
  snprintf(path, sizeof path, "%s/%s", meter.root, below);
  FILE *const in = fopen(path, "rb");
  if (!in) return -1;
  if (fscanf(in, "%lf", &value) != 1) value = -1;
  fclose(in);
  return value;
}

static void words(const char *format, int place, const char *name, char *out, size_t size) {
  char below[WORDS], path[2 * WORDS];
  snprintf(below, sizeof below, format, place, name);
  snprintf(path, sizeof path, "%s/%s", meter.root, below);
  FILE *const in = fopen(path, "rb");
  out[0] = 0;
  if (!in) return;
  if (!fgets(out, size, in)) out[0] = 0;
  fclose(in);
  out[strcspn(out, "\n")] = 0;
}

#define PACKAGE "class/powercap/intel-rapl:%d/%s"
#define CHIP "class/hwmon/hwmon%d/%s"

static double watts(void) {
  if (meter.kind == POWER) return 1e-6 * number(CHIP, meter.place, "power1_input");
  return 1e-6 * number(CHIP, meter.place, "in1_input") * number(CHIP, meter.place, "curr1_input");
}

/* The energy since the last reading, by the mean of both. */
static void add(void) {
  const double at = now(), power = watts();
  meter.joules += 0.5 * (power + meter.power) * (at - meter.at);
  meter.at = at, meter.power = power;
}

static void *sample(void *unused) {
  const struct timespec period = {0, PERIOD_NS};
  (void)unused;
  while (meter.running) {
    nanosleep(&period, NULL);
    add();
  }
  return NULL;
}

/* Which of the sensors is there, and its name. */
static enum kind look(void) {
  char name[WORDS];
  if (number(PACKAGE, 0, "energy_uj") >= 0) {
    snprintf(meter.sensor, sizeof meter.sensor, "RAPL, the processor's packages");
    return PACKAGES;
  }
  for (meter.place = 0; meter.place < PLACES; meter.place++) {
    words(CHIP, meter.place, "name", name, sizeof name);
    enum kind found = NOTHING;
    if (number(CHIP, meter.place, "energy1_input") >= 0) found = COUNTER;
    else if (number(CHIP, meter.place, "power1_input") >= 0) found = POWER;
    else if (number(CHIP, meter.place, "in1_input") >= 0 && number(CHIP, meter.place, "curr1_input") >= 0) found = VOLTS;
    if (found == NOTHING) continue;
    char label[WORDS];
    const char *const file = found == COUNTER ? "energy1_label" : found == POWER ? "power1_label" : "in1_label";
    words(CHIP, meter.place, file, label, sizeof label);
    snprintf(meter.sensor, sizeof meter.sensor, "%.200s%s%.200s", name, label[0] ? " " : "", label);
    return found;
  }
  return NOTHING;
}

static void read_packages(double *out) {
  for (int place = 0; place < PLACES; place++) out[place] = number(PACKAGE, place, "energy_uj");
}

static void give(TVMFFIAny *result, int64_t value) {
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = value;
}

static void give_real(TVMFFIAny *result, double value) {
  result->type_index = kTVMFFIFloat;
  result->zero_padding = 0;
  result->v_float64 = value;
}

/* meter_start(): begin to count; 0 where there is something that counts, else 1. */
int __tvm_ffi_meter_start(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result) {
  const char *const root = getenv("TVMCOMPRESS_SYSFS");
  (void)self, (void)arguments, (void)count;
  snprintf(meter.root, sizeof meter.root, "%s", root ? root : "/sys");
  meter.kind = look();
  meter.joules = 0;
  if (meter.kind == PACKAGES) read_packages(meter.counted);
  if (meter.kind == COUNTER) meter.counted[0] = number(CHIP, meter.place, "energy1_input");
  meter.begun = meter.at = now();
  if (meter.kind == POWER || meter.kind == VOLTS) {
    meter.power = watts();
    meter.running = 1;
    if (pthread_create(&meter.thread, NULL, sample, NULL)) meter.kind = NOTHING, meter.running = 0;
  }
  give(result, meter.kind == NOTHING);
  return 0;
}

/* meter_stop(): the joules since. */
int __tvm_ffi_meter_stop(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result) {
  (void)self, (void)arguments, (void)count;
  if (meter.running) {
    meter.running = 0;
    pthread_join(meter.thread, NULL);
    add();
  } else {
    meter.at = now();
  }
  meter.seconds = meter.at - meter.begun;
  if (meter.kind == PACKAGES) {
    double after[PLACES];
    read_packages(after);
    for (int place = 0; place < PLACES; place++) {
      if (after[place] < 0 || meter.counted[place] < 0) continue;
      double used = after[place] - meter.counted[place];
      if (used < 0) used += number(PACKAGE, place, "max_energy_range_uj"); /* it counts round and round */
      meter.joules += 1e-6 * used;
    }
  }
  if (meter.kind == COUNTER) meter.joules = 1e-6 * (number(CHIP, meter.place, "energy1_input") - meter.counted[0]);
  meter.kind = NOTHING;
  give_real(result, meter.joules);
  return 0;
}

/* meter_seconds(): between the last start and the stop behind it. */
int __tvm_ffi_meter_seconds(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result) {
  (void)self, (void)arguments, (void)count;
  give_real(result, meter.seconds);
  return 0;
}

/* meter_sensor(i): four bytes, from 4 i on, of the sensor's name; a session passes numbers where its client needs no library. */
int __tvm_ffi_meter_sensor(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result) {
  const size_t at = count > 0 ? 4 * (size_t)arguments[0].v_int64 : 0;
  int64_t bytes = 0;
  (void)self;
  for (int i = 3; i >= 0 && at + 4 <= sizeof meter.sensor; i--) bytes = bytes << 8 | (uint8_t)meter.sensor[at + i];
  give(result, bytes);
  return 0;
}
