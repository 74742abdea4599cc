/* Stands in for NVIDIA's driver library (libcuda.so.1) where there is no GPU: one GPU in host memory.

   The public driver API alone, as far as cuda-bindings 12.8 and PyCUDA need it for what runtime/cuda does. It is stricter
   than a GPU: queued work runs as late as the rules allow (at a wait), handles and addresses are never given again, and what
   a GPU may or may not forgive is a fault: a line in the file that STAND_IN_CUDA_FAULTS names, else on stderr.
   STAND_IN_CUDA_NAME, STAND_IN_CUDA_CAPABILITY (8.6), STAND_IN_CUDA_INTEGRATED (0), STAND_IN_CUDA_MEMORY (8589934592 bytes,
   of both kinds) and STAND_IN_CUDA_VERSION (12080) say which GPU and driver it is.

   Work of a library on the stream, such as a network, is queued by `standInCall`, with the memory that it reads and writes;
   `standInView` says where that memory is for the host, to which device memory is closed otherwise. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, ILLEGAL_STATE = 401, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
    CONTEXT_IS_DESTROYED = 709, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901,
    CAPTURE_ISOLATION = 905, CAPTURE_IMPLICIT = 906, CAPTURED_EVENT = 907, CAPTURE_WRONG_THREAD = 908
};
enum { REGIONS = 16, NON_BLOCKING = 1, BLOCKING_SYNC = 1, RELAXED = 2, LEGACY = 1, PER_THREAD = 2 };

typedef struct { const char *kind; int alive; void *next; } Object; /* begins each of the following */
typedef struct { Object object; int retained, error; struct Stream *legacy; } Context;
typedef struct { uintptr_t address; size_t size; char *view; int host, freed; Context *context; } Memory;
typedef struct { uintptr_t address; size_t size; int writes, watched; uint64_t seen; } Region;
typedef struct Event {
    Object object;
    struct Stream *stream;
    long ticket;
    int captured, blocking;
    double milliseconds;
} Event;
typedef struct Operation {
    enum { COPY, CALL, RECORD, WAIT } kind;
    Region regions[REGIONS]; /* of COPY: target and source */
    int count;
    int (*call)(void *);
    void *argument;
    Event *event;
    struct Stream *other; /* of WAIT: until `ticket` operations of it are done */
    long ticket, order;
    struct Operation *next;
} Operation;
typedef struct Graph { Object object; Operation *first, **end; } Graph;
typedef struct Stream {
    Object object;
    Context *context;
    int blocking, running, mode;
    enum { NO, CAPTURING, INVALIDATED } capture;
    pthread_t capturer;
    Graph *graph;
    Operation *first, **end;
    long queued, done;
} Stream;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static Object *objects;
static Memory memories[1 << 16];
static int memory_count, waits[2]; /* that ask again and again, and that sleep */
static pid_t initialized; /* the process that called cuInit */
static long orders;
static size_t allocated;
static Context primary = {{"primary context", 0, NULL}, 0, 0, NULL};
static _Thread_local Context *stack[16];
static _Thread_local int depth;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}

/* Report a fault; returns its error code. */
static int fault(int code, const char *format, ...) {
    const char *path = getenv("STAND_IN_CUDA_FAULTS");
    FILE *stream = path ? fopen(path, "a") : stderr;
    char text[400];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    if (stream) fprintf(stream, "%s (%d)\n", text, code);
    if (stream && path) fclose(stream);
    return code;
}

static void *make(const char *kind, size_t size) {
    Object *object = calloc(1, size);
    object->kind = kind;
    object->alive = 1;
    object->next = objects;
    objects = object;
    return object;
}

static int bad_handle(const void *handle, const char *kind) {
    const Object *object = handle;
    if (!object) return fault(INVALID_HANDLE, "no %s", kind);
    if (strcmp(object->kind, kind)) return fault(INVALID_HANDLE, "%s is no %s", object->kind, kind);
    return object->alive ? SUCCESS : fault(INVALID_HANDLE, "use after free: %s that was destroyed", kind);
}

static Context *current(void) { return depth ? stack[depth - 1] : NULL; }

/* What every call but those on devices and contexts needs: a current context that lives and has not failed. */
static int require_context(const char *call) {
    Context *context = current();
    if (!initialized) return fault(NOT_INITIALIZED, "%s before cuInit", call);
    if (getpid() != initialized) return NOT_INITIALIZED; /* CUDA does not work after fork */
    if (!context) return fault(INVALID_CONTEXT, "%s: no context is current", call);
    if (!context->object.alive) return fault(CONTEXT_IS_DESTROYED, "%s: the current context was destroyed", call);
    return context->error;
}

#define ENTER(call) \
    pthread_mutex_lock(&lock); \
    int result = require_context(call); \
    if (result) goto leave
#define TRY(work) if ((result = (work))) goto leave
#define LEAVE \
leave: \
    pthread_mutex_unlock(&lock); \
    return result

/* ---- memory ---- */

static Memory *memory_at(uintptr_t address, size_t size) {
    if (!size) size = 1; /* the end of one may be the beginning of the next */
    for (int i = memory_count - 1; i >= 0; i--)
        if (memories[i].address <= address && address + size <= memories[i].address + memories[i].size) return &memories[i];
    return NULL;
}

static char *view_of(uintptr_t address, size_t size) {
    Memory *memory = memory_at(address, size);
    return memory ? memory->view + (address - memory->address) : NULL;
}

static int overlap(const Region *a, const Region *b) {
    return a->address < b->address + b->size && b->address < a->address + a->size;
}

static uint64_t contents(const Region *region) {
    const char *bytes = view_of(region->address, region->size);
    uint64_t hash = region->size, word = 0;
    for (size_t i = 0; i < region->size; i += sizeof word) {
        size_t rest = region->size - i;
        memcpy(&word, bytes + i, rest < sizeof word ? rest : sizeof word);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash;
}

/* A queued operation before `order` that touches a region, of any stream but `except`; either of the two writes. */
static Operation *pending(const Region *region, long order, const Stream *except) {
    for (Object *object = objects; object; object = object->next) {
        Stream *stream = (Stream *)object;
        if (strcmp(object->kind, "stream") || stream == except) continue;
        for (Operation *other = stream->first; other; other = other->next)
            for (int i = 0; other->order < order && i < other->count; i++)
                if (overlap(region, &other->regions[i]) && (region->writes || other->regions[i].writes)) return other;
    }
    return NULL;
}

static int require_memory(const Operation *operation, const char *when) {
    for (int i = 0; i < operation->count; i++) {
        const Region *region = &operation->regions[i];
        const Memory *memory = memory_at(region->address, region->size);
        const char *does = region->writes ? "writes" : "reads";
        if (!memory) return fault(ILLEGAL_ADDRESS, "work that is %s %s memory that CUDA did not allocate", when, does);
        if (memory->freed) return fault(ILLEGAL_ADDRESS, "use after free: work that is %s %s freed memory", when, does);
    }
    return SUCCESS;
}

static int allocate(uintptr_t *address, size_t size, int host, const char *what) {
    Memory *memory = &memories[memory_count];
    size_t reserved = (size + 4095) / 4096 * 4096;
    if (!size || memory_count == sizeof memories / sizeof *memories) return fault(INVALID_VALUE, "%s of %zu bytes", what, size);
    if (allocated + size > strtoull(setting("STAND_IN_CUDA_MEMORY", "8589934592"), NULL, 10)) return OUT_OF_MEMORY;
    void *place = mmap(NULL, reserved, host ? PROT_READ | PROT_WRITE : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *view = host ? place : malloc(size);
    if (place == MAP_FAILED || !view) return OUT_OF_MEMORY;
    memset(view, 0xFF, size); /* NaN, so that it shows where it is read before it is written */
    *memory = (Memory){(uintptr_t)place, size, view, host, 0, current()};
    memory_count++;
    allocated += size;
    *address = memory->address;
    return SUCCESS;
}

static int release(uintptr_t address, int host, const char *what) {
    Memory *memory = memory_at(address, 0);
    if (!memory || memory->address != address || memory->host != host)
        return fault(INVALID_VALUE, "%s of what was not allocated so", what);
    if (memory->freed) return fault(INVALID_VALUE, "%s: freed twice", what);
    Region all = {address, memory->size, 1, 0, 0};
    if (pending(&all, orders + 1, NULL)) fault(ILLEGAL_ADDRESS, "%s: freed while queued work uses it", what);
    allocated -= memory->size;
    memory->freed = 1; /* kept, out of reach, so that its address is not given again */
    if (host) mprotect((void *)address, (memory->size + 4095) / 4096 * 4096, PROT_NONE);
    return SUCCESS;
}

/* ---- streams ---- */

static void advance(Stream *stream, long ticket);

static int run(Stream *stream, Operation *operation) {
    int result = require_memory(operation, "run");
    if (result) return result;
    for (int i = 0; i < operation->count; i++) {
        const Region *region = &operation->regions[i];
        if (region->watched && contents(region) != region->seen)
            fault(ILLEGAL_ADDRESS, "host memory was overwritten before queued work had read it");
        const Operation *other = pending(region, operation->order, stream);
        if (other)
            fault(ILLEGAL_ADDRESS, "race: work %s memory that work queued before on another stream has yet to %s",
                  region->writes ? "writes" : "reads", region->writes ? "use" : "write");
    }
    struct timespec now;
    switch (operation->kind) {
    case COPY:
        memmove(view_of(operation->regions[0].address, operation->regions[0].size),
                view_of(operation->regions[1].address, operation->regions[1].size), operation->regions[1].size);
        break;
    case CALL:
        pthread_mutex_unlock(&lock); /* it may need Python's own lock, whose holder may wait for ours */
        result = operation->call(operation->argument) ? fault(LAUNCH_FAILED, "the work of a library failed") : SUCCESS;
        pthread_mutex_lock(&lock);
        break;
    case RECORD:
        clock_gettime(CLOCK_MONOTONIC, &now);
        operation->event->milliseconds = now.tv_sec * 1e3 + now.tv_nsec / 1e6;
        break;
    case WAIT:
        advance(operation->other, operation->ticket);
    }
    return result;
}

/* Run what is queued on a stream, until `ticket` operations of it are done; in the calling thread, one thread at a time. */
static void advance(Stream *stream, long ticket) {
    while (stream->done < ticket) {
        if (stream->running) {
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        Operation *operation = stream->first;
        stream->running = 1;
        int error = run(stream, operation);
        if (error) stream->context->error = error;
        stream->first = operation->next;
        if (!stream->first) stream->end = &stream->first;
        free(operation);
        stream->done++;
        stream->running = 0;
        pthread_cond_broadcast(&changed);
    }
}

static Stream *new_stream(Context *context, int blocking) {
    Stream *stream = make("stream", sizeof *stream);
    stream->context = context;
    stream->blocking = blocking;
    stream->end = &stream->first;
    return stream;
}

/* The stream of a handle; 0 to 2 are default streams, here one for all threads. */
static int find_stream(Stream *handle, Stream **stream) {
    Context *context = current();
    if ((uintptr_t)handle <= PER_THREAD) {
        if (!context->legacy) context->legacy = new_stream(context, 1);
        *stream = context->legacy;
        return SUCCESS;
    }
    *stream = handle;
    int bad = bad_handle(handle, "stream");
    if (bad) return bad;
    if (handle->context != context) return fault(INVALID_HANDLE, "the stream's context is not current");
    return SUCCESS;
}

static void append(Stream *stream, Operation operation) {
    Operation *copy = malloc(sizeof *copy);
    *copy = operation;
    copy->next = NULL;
    copy->order = ++orders;
    for (int i = 0; i < copy->count; i++) {
        Region *region = &copy->regions[i], all = *region;
        const Memory *memory = memory_at(region->address, region->size);
        all.writes = 0; /* what the host has written is watched, not what other queued work is to write first */
        region->watched = !region->writes && memory->host && !pending(&all, copy->order, NULL);
        if (region->watched) region->seen = contents(region);
    }
    *stream->end = copy;
    stream->end = &copy->next;
    stream->queued++;
}

static void append_wait(Stream *stream, Stream *other) {
    if (other->done < other->queued) append(stream, (Operation){.kind = WAIT, .other = other, .ticket = other->queued});
}

/* Queue an operation, or add it to the graph that is being recorded. */
static int enqueue(Stream *stream, Operation operation) {
    int bad = require_memory(&operation, "queued");
    if (bad) return bad;
    if (stream->capture == INVALIDATED) return CAPTURE_INVALIDATED;
    if (stream->capture == CAPTURING) {
        Operation *copy = malloc(sizeof *copy);
        *copy = operation;
        copy->next = NULL;
        *stream->graph->end = copy;
        stream->graph->end = &copy->next;
        return SUCCESS;
    }
    Stream *legacy = stream->context->legacy;
    for (Object *object = objects; stream == legacy && object; object = object->next) {
        Stream *other = (Stream *)object;
        if (strcmp(object->kind, "stream") || other == legacy || !other->blocking) continue;
        if (other->capture) {
            other->capture = INVALIDATED;
            return fault(CAPTURE_IMPLICIT, "the default stream is used while a stream that waits for it is recorded");
        }
        append_wait(legacy, other);
    }
    if (stream->blocking && legacy && stream != legacy) append_wait(stream, legacy);
    append(stream, operation);
    return SUCCESS;
}

/* A call that may not be made while a graph is recorded: by the thread that does, or by any (`everywhere`); it ends that. */
static int require_no_capture(const char *call, int everywhere) {
    int result = SUCCESS;
    for (Object *object = objects; object; object = object->next) {
        Stream *stream = (Stream *)object;
        if (strcmp(object->kind, "stream") || stream->capture == NO) continue;
        int here = pthread_equal(stream->capturer, pthread_self()) && stream->mode != RELAXED;
        if (!everywhere && !here && stream->mode != 0) continue;
        stream->capture = INVALIDATED;
        result = fault(CAPTURE_UNSUPPORTED, "%s while a graph is recorded", call);
    }
    return result;
}

/* ---- the driver API ---- */

int cuInit(unsigned flags) {
    (void)flags;
    if (!initialized) initialized = getpid();
    return initialized == getpid() ? SUCCESS : NOT_INITIALIZED;
}
int cuDriverGetVersion(int *version) { *version = atoi(setting("STAND_IN_CUDA_VERSION", "12080")); return SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int number) { *device = 0; return number ? INVALID_DEVICE : SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) {
    (void)device;
    snprintf(name, size, "%s", setting("STAND_IN_CUDA_NAME", "Stand-in GPU"));
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = (size_t)8 << 30; return SUCCESS; }
int cuDeviceGetUuid_v2(void *uuid, int device) { (void)device; memset(uuid, 7, 16); return SUCCESS; }

int cuDeviceComputeCapability(int *major, int *minor, int device) {
    (void)device;
    return sscanf(setting("STAND_IN_CUDA_CAPABILITY", "8.6"), "%d.%d", major, minor) == 2 ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int major = 0, minor = 0;
    cuDeviceComputeCapability(&major, &minor, device);
    switch (attribute) {
    case 18: *value = atoi(setting("STAND_IN_CUDA_INTEGRATED", "0")); break;
    case 19: case 41: *value = 1; break; /* maps host memory; one address space for both */
    case 75: *value = major; break;
    case 76: *value = minor; break;
    default: *value = 0;
    }
    return SUCCESS;
}

int cuGetErrorName(int code, const char **name) {
    static _Thread_local char text[32];
    snprintf(text, sizeof text, "CUDA_ERROR_%d", code);
    *name = text;
    return SUCCESS;
}
int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }

int cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, int *status) {
    char versioned[200];
    void *self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    (void)version, (void)flags;
    snprintf(versioned, sizeof versioned, "%s_v2", name);
    *found = dlsym(self, versioned);
    if (!*found) *found = dlsym(self, name);
    if (status) *status = *found ? 0 : 1;
    return *found ? SUCCESS : NOT_FOUND;
}
int cuGetProcAddress(const char *name, void **found, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, found, version, flags, NULL);
}

int cuDevicePrimaryCtxRetain(Context **context, int device) {
    (void)device;
    pthread_mutex_lock(&lock);
    primary.retained++;
    primary.object.alive = 1;
    *context = &primary;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    (void)device;
    if (!primary.retained) return fault(INVALID_CONTEXT, "the primary context was released more often than retained");
    primary.object.alive = --primary.retained > 0;
    return SUCCESS;
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    (void)device;
    *flags = 0;
    *active = primary.object.alive;
    return SUCCESS;
}
int cuCtxCreate_v2(Context **context, unsigned flags, int device) {
    (void)flags, (void)device;
    pthread_mutex_lock(&lock);
    stack[depth++] = *context = make("context", sizeof **context);
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}
int cuCtxDestroy_v2(Context *context) {
    context->object.alive = 0;
    if (current() == context) depth--;
    return SUCCESS;
}
int cuCtxGetCurrent(Context **context) { *context = current(); return SUCCESS; }
int cuCtxSetCurrent(Context *context) {
    if (depth) depth--;
    if (context) stack[depth++] = context;
    return SUCCESS;
}
int cuCtxPushCurrent_v2(Context *context) {
    if (!context->object.alive) return fault(CONTEXT_IS_DESTROYED, "a context that was destroyed is made current");
    if (depth == sizeof stack / sizeof *stack) return fault(INVALID_VALUE, "contexts are pushed and not popped");
    stack[depth++] = context;
    return SUCCESS;
}
int cuCtxPopCurrent_v2(Context **context) {
    if (!depth) return fault(INVALID_CONTEXT, "a context is popped where none is current");
    depth--;
    if (context) *context = stack[depth];
    return SUCCESS;
}
int cuCtxGetDevice(int *device) { *device = 0; return current() ? SUCCESS : INVALID_CONTEXT; }
int cuCtxGetApiVersion(Context *context, unsigned *version) { (void)context; *version = 12080; return SUCCESS; }

int cuCtxSynchronize(void) {
    ENTER("cuCtxSynchronize");
    TRY(require_no_capture("cuCtxSynchronize", 1));
    for (Object *object = objects; object; object = object->next)
        if (!strcmp(object->kind, "stream")) advance((Stream *)object, ((Stream *)object)->queued);
    result = current()->error;
    LEAVE;
}

int cuMemAlloc_v2(uintptr_t *address, size_t size) {
    ENTER("cuMemAlloc");
    TRY(require_no_capture("cuMemAlloc", 0));
    result = allocate(address, size, 0, "cuMemAlloc");
    LEAVE;
}
int cuMemFree_v2(uintptr_t address) {
    ENTER("cuMemFree");
    TRY(require_no_capture("cuMemFree", 0));
    result = release(address, 0, "cuMemFree");
    LEAVE;
}
int cuMemHostAlloc(void **place, size_t size, unsigned flags) {
    (void)flags;
    ENTER("cuMemHostAlloc");
    TRY(require_no_capture("cuMemHostAlloc", 0));
    result = allocate((uintptr_t *)place, size, 1, "cuMemHostAlloc");
    LEAVE;
}
int cuMemFreeHost(void *place) {
    ENTER("cuMemFreeHost");
    TRY(require_no_capture("cuMemFreeHost", 0));
    result = release((uintptr_t)place, 1, "cuMemFreeHost");
    LEAVE;
}
int cuMemHostGetDevicePointer_v2(uintptr_t *address, void *place, unsigned flags) {
    (void)flags;
    *address = (uintptr_t)place;
    return SUCCESS;
}
int cuMemGetInfo_v2(size_t *available, size_t *total) { *available = *total = (size_t)8 << 30; return SUCCESS; }

int cuMemcpyAsync(uintptr_t target, uintptr_t source, size_t size, Stream *handle) {
    Stream *stream;
    ENTER("cuMemcpyAsync");
    TRY(find_stream(handle, &stream));
    result = enqueue(stream, (Operation){.kind = COPY, .count = 2, .regions = {{target, size, 1, 0, 0}, {source, size, 0, 0, 0}}});
    LEAVE;
}
int cuMemcpyHtoDAsync_v2(uintptr_t target, const void *source, size_t size, Stream *stream) {
    return cuMemcpyAsync(target, (uintptr_t)source, size, stream);
}
int cuMemcpyDtoHAsync_v2(void *target, uintptr_t source, size_t size, Stream *stream) {
    return cuMemcpyAsync((uintptr_t)target, source, size, stream);
}
int cuMemcpyDtoDAsync_v2(uintptr_t target, uintptr_t source, size_t size, Stream *stream) {
    return cuMemcpyAsync(target, source, size, stream);
}

int cuStreamCreate(Stream **stream, unsigned flags) {
    ENTER("cuStreamCreate");
    *stream = new_stream(current(), !(flags & NON_BLOCKING));
    LEAVE;
}
int cuStreamDestroy_v2(Stream *stream) { /* what is queued runs to its end */
    ENTER("cuStreamDestroy");
    TRY(bad_handle(stream, "stream"));
    stream->object.alive = 0;
    LEAVE;
}
int cuStreamSynchronize(Stream *handle) {
    Stream *stream;
    ENTER("cuStreamSynchronize");
    TRY(find_stream(handle, &stream));
    if (stream->capture) {
        stream->capture = INVALIDATED;
        TRY(fault(CAPTURE_UNSUPPORTED, "cuStreamSynchronize of a stream that is recorded"));
    }
    waits[0]++;
    advance(stream, stream->queued);
    result = current()->error;
    LEAVE;
}
int cuStreamWaitEvent(Stream *handle, Event *event, unsigned flags) {
    Stream *stream;
    (void)flags;
    ENTER("cuStreamWaitEvent");
    TRY(find_stream(handle, &stream));
    TRY(bad_handle(event, "event"));
    if (stream->capture && !event->captured) {
        stream->capture = INVALIDATED;
        TRY(fault(CAPTURE_ISOLATION, "a recorded stream waits for an event of outside"));
    }
    if (event->stream && event->stream != stream)
        result = enqueue(stream, (Operation){.kind = WAIT, .other = event->stream, .ticket = event->ticket});
    LEAVE;
}
int cuStreamBeginCapture_v2(Stream *stream, int mode) {
    ENTER("cuStreamBeginCapture");
    if ((uintptr_t)stream <= LEGACY) TRY(fault(CAPTURE_UNSUPPORTED, "the default stream cannot be recorded"));
    TRY(find_stream(stream, &stream));
    if (stream->capture) TRY(fault(ILLEGAL_STATE, "a stream is recorded twice at a time"));
    stream->capture = CAPTURING;
    stream->mode = mode;
    stream->capturer = pthread_self();
    stream->graph = make("graph", sizeof *stream->graph);
    stream->graph->end = &stream->graph->first;
    LEAVE;
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
    *graph = NULL;
    ENTER("cuStreamEndCapture");
    TRY(find_stream(stream, &stream));
    if (!stream->capture) TRY(fault(ILLEGAL_STATE, "a recording is ended that was not begun"));
    if (stream->mode != RELAXED && !pthread_equal(stream->capturer, pthread_self()))
        TRY(fault(CAPTURE_WRONG_THREAD, "a recording is ended in another thread"));
    if (stream->capture == INVALIDATED) {
        stream->graph->object.alive = 0;
        result = CAPTURE_INVALIDATED;
    } else {
        *graph = stream->graph;
    }
    stream->capture = NO;
    LEAVE;
}

int cuEventCreate(Event **event, unsigned flags) {
    ENTER("cuEventCreate");
    *event = make("event", sizeof **event);
    (*event)->blocking = flags & BLOCKING_SYNC;
    LEAVE;
}
int cuEventRecord(Event *event, Stream *handle) {
    Stream *stream;
    ENTER("cuEventRecord");
    TRY(find_stream(handle, &stream));
    TRY(bad_handle(event, "event"));
    TRY(enqueue(stream, (Operation){.kind = RECORD, .event = event}));
    event->captured = stream->capture != NO;
    event->stream = stream;
    event->ticket = stream->queued;
    LEAVE;
}
int cuEventSynchronize(Event *event) {
    ENTER("cuEventSynchronize");
    TRY(bad_handle(event, "event"));
    if (event->captured) TRY(fault(CAPTURED_EVENT, "an event that was recorded into a graph is waited for"));
    waits[event->blocking]++;
    if (event->stream) advance(event->stream, event->ticket);
    result = current()->error;
    LEAVE;
}
int cuEventElapsedTime_v2(float *milliseconds, Event *start, Event *end) {
    ENTER("cuEventElapsedTime");
    TRY(bad_handle(start, "event"));
    TRY(bad_handle(end, "event"));
    if (!start->stream || !end->stream) TRY(fault(INVALID_HANDLE, "the time between events that were not recorded"));
    if (start->stream->done < start->ticket || end->stream->done < end->ticket) TRY(NOT_READY);
    *milliseconds = (float)(end->milliseconds - start->milliseconds);
    LEAVE;
}
int cuEventElapsedTime(float *milliseconds, Event *start, Event *end) { return cuEventElapsedTime_v2(milliseconds, start, end); }
int cuEventDestroy_v2(Event *event) {
    ENTER("cuEventDestroy");
    TRY(bad_handle(event, "event"));
    event->object.alive = 0;
    LEAVE;
}

int cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, uint64_t flags) {
    (void)flags;
    ENTER("cuGraphInstantiate");
    TRY(bad_handle(graph, "graph"));
    *executable = make("executable graph", sizeof **executable);
    (*executable)->first = graph->first; /* operations of graphs are never freed */
    LEAVE;
}
int cuGraphLaunch(Graph *executable, Stream *handle) {
    Stream *stream;
    ENTER("cuGraphLaunch");
    TRY(find_stream(handle, &stream));
    TRY(bad_handle(executable, "executable graph"));
    for (Operation *operation = executable->first; operation; operation = operation->next) TRY(enqueue(stream, *operation));
    LEAVE;
}
int cuGraphDestroy(Graph *graph) {
    ENTER("cuGraphDestroy");
    TRY(bad_handle(graph, "graph"));
    graph->object.alive = 0;
    LEAVE;
}
int cuGraphExecDestroy(Graph *executable) {
    ENTER("cuGraphExecDestroy");
    TRY(bad_handle(executable, "executable graph"));
    executable->object.alive = 0;
    LEAVE;
}

/* ---- for libraries that stand in for others ---- */

typedef struct { uintptr_t address; size_t size; int writes; } StandInRegion;

/* Queue `call(argument)`, which reads and writes `regions`; it returns 0, or else the context has failed. */
int standInCall(Stream *handle, int (*call)(void *), void *argument, const StandInRegion *regions, int count) {
    Stream *stream;
    Operation operation = {.kind = CALL, .count = count, .call = call, .argument = argument};
    ENTER("the work of a library");
    if (count > REGIONS) TRY(INVALID_VALUE);
    for (int i = 0; i < count; i++)
        operation.regions[i] = (Region){regions[i].address, regions[i].size, regions[i].writes, 0, 0};
    TRY(find_stream(handle, &stream));
    result = enqueue(stream, operation);
    LEAVE;
}
void *standInView(uintptr_t address, size_t size) { return view_of(address, size); }
int standInWaits(int sleeping) { return waits[sleeping]; }
/* Add a fault that only the other library can know of. */
void standInFault(const char *text) { fault(INVALID_VALUE, "%s", text); }

__attribute__((destructor)) static void at_exit(void) {
    for (int i = 0; i < memory_count; i++)
        if (!memories[i].freed) fault(OUT_OF_MEMORY, "leak: %zu bytes of %s memory", memories[i].size, memories[i].host ? "host" : "device");
    for (Object *object = objects; object; object = object->next) {
        int own = !strcmp(object->kind, "stream") && ((Stream *)object)->context->legacy == (Stream *)object;
        if (object->alive && !own) fault(OUT_OF_MEMORY, "leak: %s", object->kind);
    }
}
