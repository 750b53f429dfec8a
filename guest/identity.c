/* What a clone must not share with its template: random numbers and the time. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/random.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"

#define SEED_LIMIT 512

static int generator = -1;

/* Hold the device: a clone need not look for it. */
void identity_boot(void)
{
	generator = open("/dev/urandom", O_RDWR | O_CLOEXEC);
}

/* Mix the host's bytes in as entropy and make the generator use them at once (random(4)). */
void identity_seed(const uint8_t *bytes, size_t length)
{
	struct {
		struct rand_pool_info info;
		uint8_t bytes[SEED_LIMIT];
	} pool;
	if (length > SEED_LIMIT)
		length = SEED_LIMIT;
	pool.info.entropy_count = (int)length * 8;
	pool.info.buf_size = (int)length;
	memcpy(pool.info.buf, bytes, length);
	if (ioctl(generator, RNDADDENTROPY, &pool) < 0 || ioctl(generator, RNDRESEEDCRNG) < 0)
		die("cannot seed the random number generator");
	explicit_bzero(&pool, sizeof pool);
}

void identity_time(uint64_t nanoseconds)
{
	struct timespec now = {.tv_sec = nanoseconds / 1000000000u, .tv_nsec = nanoseconds % 1000000000u};
	if (clock_settime(CLOCK_REALTIME, &now) < 0)
		die("cannot set the clock");
}
