// Words with their numbers.

export const counted = (n, one, many) => `${n} ${n === 1 ? one : many}`;
