/* Loaded by a board's TVM RPC server at the start of a session, which the server runs in a process of its own. */
#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <tvm/ffi/c_api.h>
#include <unistd.h>

#define WORDS 4096

/* A session that dies of a signal would take the server with it; one that ends does not. */
static void end(int number) {
  (void)number;
  _exit(0);
}

static void give(TVMFFIAny *result, int64_t value) {
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = value;
}

/* protect(seconds): end the session, and nothing but it, when what it runs crashes or takes longer; 0 for no limit. */
int __tvm_ffi_protect(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result) {
  static uint8_t stack[1 << 16]; /* the crash may be that of a full stack */
  static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS, SIGALRM};
  const stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
  struct sigaction action = {.sa_handler = end, .sa_flags = SA_ONSTACK};
  (void)self;
  if (sigaltstack(&own, NULL)) action.sa_flags = 0;
  int failed = 0;
  for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) failed |= sigaction(signals[i], &action, NULL);
  alarm(count > 0 ? (unsigned)arguments[0].v_int64 : 0);
  give(result, failed);
  return 0;
}

/* leave(): end the session at once, whatever the client still holds of it. */
int __tvm_ffi_leave(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result) {
  (void)self, (void)arguments, (void)count, (void)result;
  _exit(0);
}

/* The first words of a file as one line `name=...`; nothing where it cannot be read. */
static void note(FILE *out, const char *name, const char *path) {
  char text[WORDS];
  FILE *const in = fopen(path, "rb");
  if (!in) return;
  const size_t count = fread(text, 1, sizeof text - 1, in);
  fclose(in);
  text[count] = 0;
  text[strcspn(text, "\n")] = 0;
  fprintf(out, "%s=%s\n", name, text);
}

/* A line of a file of `key : value` lines. */
static void note_line(FILE *out, const char *name, const char *path, const char *key) {
  char line[WORDS];
  FILE *const in = fopen(path, "rb");
  while (in && fgets(line, sizeof line, in)) {
    char *const value = strchr(line, ':');
    if (value && !strncmp(line, key, strlen(key))) {
      fprintf(out, "%s=%s", name, value + 1);
      break;
    }
  }
  if (in) fclose(in);
}

/* The version of the TVM that serves: packages lie side by side, each with a folder that tells its version. */
static void note_version(FILE *out) {
  char line[WORDS];
  FILE *const maps = fopen("/proc/self/maps", "rb");
  while (maps && fgets(line, sizeof line, maps)) {
    char *path = strchr(line, '/'), *const mark = path ? strstr(path, "/tvm/") : NULL;
    if (!mark || !strstr(mark, ".so")) continue;
    *mark = 0;
    DIR *const folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
      char *const end_of_name = strstr(entry->d_name, ".dist-info");
      if (!end_of_name || strncmp(entry->d_name, "apache_tvm-", 11)) continue;
      *end_of_name = 0;
      fprintf(out, "tvm=%s\n", entry->d_name + 11);
      closedir(folder);
      fclose(maps);
      return;
    }
    if (folder) closedir(folder);
  }
  if (maps) fclose(maps);
}

/* facts(): write what is known of the board into the file `facts` of the session's folder. */
int __tvm_ffi_facts(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result) {
  FILE *const out = fopen("facts", "wb");
  (void)self, (void)arguments, (void)count;
  give(result, out == NULL);
  if (!out) return 0;
  fprintf(out, "hwcap=%lx\nhwcap2=%lx\n", getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
  fprintf(out, "cpus=%ld\n", sysconf(_SC_NPROCESSORS_ONLN));
  note(out, "model", "/proc/device-tree/model");
  note_line(out, "processor", "/proc/cpuinfo", "model name");
  note_line(out, "flags", "/proc/cpuinfo", "flags");
  note(out, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  note(out, "khz", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq");
  note(out, "millicelsius", "/sys/class/thermal/thermal_zone0/temp");
  note_version(out);
  fclose(out);
  return 0;
}
