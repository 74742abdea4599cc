/* Stands in for NVIDIA's driver library where there is no driver: one GPU that draws 40 W, so that the real pynvml runs. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int gpu;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == 3 ? "Not Supported" : "Unknown"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)atoi(setting("TEST_GPUS", "1")); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { (void)index; *device = &gpu; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { (void)uuid; *device = &gpu; return 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned length) {
    (void)device;
    strncpy(name, "NVIDIA Test GPU", length);
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    struct timespec now;
    (void)device;
    if (!strcmp(setting("TEST_COUNTER", "yes"), "no")) return 3;
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = 40000ULL * now.tv_sec + 40ULL * (now.tv_nsec / 1000000);
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    (void)device;
    *milliwatts = 40000;
    return !strcmp(setting("TEST_POWER", "yes"), "no") ? 3 : 0;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *degrees) { (void)device; (void)sensor; *degrees = 61; return 0; }
int nvmlDeviceGetClockInfo(void *device, int type, unsigned *mhz) { (void)device; (void)type; *mhz = 600; return 0; }
int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned *mhz) { (void)device; (void)type; *mhz = 2000; return 0; }
