// Pictures side by side on a canvas, as indices into a palette: the commonest colours as they are, the others by the mean of their kind.
async ([pictures, scale, colours, tallest, gap]) => {
  const images = await Promise.all(
    pictures.map(async (data) => {
      const one = new Image();
      one.src = `data:image/png;base64,${data}`;
      await one.decode();
      return one;
    }),
  );
  const sizes = images.map((one) => [Math.round(one.width * scale), Math.round(Math.min(one.height, tallest) * scale)]);
  const canvas = document.createElement('canvas');
  canvas.width = sizes.reduce((sum, [w]) => sum + w + gap, gap);
  canvas.height = Math.max(...sizes.map(([, h]) => h)) + 2 * gap;
  const pen = canvas.getContext('2d');
  pen.imageSmoothingQuality = 'high';
  pen.fillStyle = '#8a9296';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  let x = gap;
  images.forEach((one, i) => {
    const [w, h] = sizes[i];
    pen.drawImage(one, 0, 0, one.width, Math.min(one.height, tallest), x, gap, w, h);
    x += w + gap;
  });
  const seen = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  const exact = new Map();
  const rough = new Map();
  for (let i = 0; i < seen.length; i += 4) {
    const [r, g, b] = [seen[i], seen[i + 1], seen[i + 2]];
    const key = (r << 16) | (g << 8) | b;
    exact.set(key, (exact.get(key) ?? 0) + 1);
  }
  for (const [key, n] of exact) {
    const [r, g, b] = [key >> 16, (key >> 8) & 255, key & 255];
    const place = ((r >> 4) << 8) | ((g >> 4) << 4) | (b >> 4);
    const sum = rough.get(place) ?? [0, 0, 0, 0];
    rough.set(place, [sum[0] + n, sum[1] + n * r, sum[2] + n * g, sum[3] + n * b]);
  }
  const common = [...exact].sort((one, other) => other[1] - one[1]).slice(0, colours >> 1).map(([key]) => [key >> 16, (key >> 8) & 255, key & 255]);
  const mean = ([n, ...sums]) => sums.map((sum) => Math.round(sum / n));
  const weight = ([n, ...sums]) => n * (1 + (Math.max(...sums) - Math.min(...sums)) / n / 8); // a little of a colour tells more than much of a grey
  const rest = [...rough.values()].sort((one, other) => weight(other) - weight(one)).slice(0, colours - common.length).map(mean);
  const palette = [...common, ...rest];
  const nearest = new Map();
  const indices = new Uint8Array(canvas.width * canvas.height);
  for (let i = 0, at = 0; i < seen.length; i += 4, at += 1) {
    const [r, g, b] = [seen[i], seen[i + 1], seen[i + 2]];
    const key = (r << 16) | (g << 8) | b;
    let best = nearest.get(key);
    if (best === undefined) {
      let least = Infinity;
      palette.forEach(([pr, pg, pb], place) => {
        const far = (pr - r) ** 2 + (pg - g) ** 2 + (pb - b) ** 2;
        if (far < least) [least, best] = [far, place];
      });
      nearest.set(key, best);
    }
    indices[at] = best;
  }
  let text = '';
  for (let i = 0; i < indices.length; i += 32768) text += String.fromCharCode(...indices.subarray(i, i + 32768));
  return [canvas.width, canvas.height, palette.flat(), btoa(text)];
}
